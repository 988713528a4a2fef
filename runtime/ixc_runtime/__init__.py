"""The runtime's public names: everything the service and embedders use. Free of torch.

engine = await Engine.start(EngineConfig(model="path/to/model"))
async for update in engine.generate(GenerationRequest(prompt=...)):
...
await engine.close()
"""

from ixc_runtime import errors
from ixc_runtime.admission import PromptCount
from ixc_runtime.engine import Engine
from ixc_runtime.engine_process.messages import EngineConfig, Loading, LoadingStage
from ixc_runtime.generation import Generation
from ixc_runtime.media.desk import MediaLimits
from ixc_runtime.media.formats import SNIFFED_BYTES, sniff_image_format, sniff_video_format
from ixc_runtime.media.geometry import ImageInfo
from ixc_runtime.media.price import MediaPrice
from ixc_runtime.media.video import MAX_FRAMES as MAX_VIDEO_FRAMES
from ixc_runtime.media.video import VideoInfo
from ixc_runtime.model_folder import ModelFolder
from ixc_runtime.model_folder import look_at as look_at_model_folder
from ixc_runtime.model_info import AdapterInfo, EngineLoad, MemoryPlan, ModelInfo
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
    VideoPart,
    VideoSource,
)
from ixc_runtime.sampling.settings import merged as merged_sampling
from ixc_runtime.sampling.settings import violations as sampling_violations

__all__ = [
    "BASE_ADAPTER",
    "MAX_VIDEO_FRAMES",
    "META_INSTRUCTION",
    "SNIFFED_BYTES",
    "Accepted",
    "AdapterInfo",
    "Completed",
    "Conversation",
    "Engine",
    "EngineConfig",
    "EngineLoad",
    "FinishReason",
    "Generation",
    "GenerationRequest",
    "GenerationUpdate",
    "ImageInfo",
    "ImagePart",
    "ImageSource",
    "Loading",
    "LoadingStage",
    "MediaLimits",
    "MediaPrice",
    "MemoryPlan",
    "Message",
    "ModelFolder",
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
    "VideoInfo",
    "VideoPart",
    "VideoSource",
    "errors",
    "look_at_model_folder",
    "merged_sampling",
    "sampling_violations",
    "sniff_image_format",
    "sniff_video_format",
]
