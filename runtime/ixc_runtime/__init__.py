"""The runtime's public names: everything the service and embedders use. Free of torch.

engine = await Engine.start(EngineConfig(model="path/to/model"))
async for update in engine.generate(GenerationRequest(prompt=...)):
...
await engine.close()
"""

from ixc_runtime import errors
from ixc_runtime.engine import Engine, PromptCount
from ixc_runtime.engine_process.messages import EngineConfig
from ixc_runtime.generation import Generation
from ixc_runtime.model_info import EngineLoad, MemoryPlan, ModelInfo
from ixc_runtime.prompt.meta_instruction import META_INSTRUCTION
from ixc_runtime.request import (
    BASE_ADAPTER,
    Accepted,
    Completed,
    Conversation,
    FinishReason,
    GenerationRequest,
    GenerationUpdate,
    ImagePart,
    ImageSource,
    Message,
    OutputOptions,
    Part,
    Prompt,
    PromptProcessed,
    PromptUsage,
    Role,
    SamplingParams,
    TextDelta,
    TextPart,
    Timings,
    TokenLogprob,
    TokenPrompt,
    TokensPart,
    Usage,
)
from ixc_runtime.sampling.settings import merged as merged_sampling
from ixc_runtime.sampling.settings import violations as sampling_violations

__all__ = [
    "BASE_ADAPTER",
    "META_INSTRUCTION",
    "Accepted",
    "Completed",
    "Conversation",
    "Engine",
    "EngineConfig",
    "EngineLoad",
    "FinishReason",
    "Generation",
    "GenerationRequest",
    "GenerationUpdate",
    "ImagePart",
    "ImageSource",
    "MemoryPlan",
    "Message",
    "ModelInfo",
    "OutputOptions",
    "Part",
    "Prompt",
    "PromptCount",
    "PromptProcessed",
    "PromptUsage",
    "Role",
    "SamplingParams",
    "TextDelta",
    "TextPart",
    "Timings",
    "TokenLogprob",
    "TokenPrompt",
    "TokensPart",
    "Usage",
    "errors",
    "merged_sampling",
    "sampling_violations",
]
