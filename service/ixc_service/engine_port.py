"""What the service asks of an engine: `ixc_runtime.Engine` has it, and so has the tests' fake."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Protocol

from ixc_runtime import (
    AdapterInfo,
    EngineLoad,
    FinishReason,
    GenerationRequest,
    GenerationUpdate,
    ImageInfo,
    ImageSource,
    MediaPrice,
    MemoryPlan,
    ModelInfo,
    Prompt,
    PromptCount,
    VideoInfo,
    VideoSource,
)


class GenerationPort(Protocol):
    """One answer. Iterating it runs it; it ends with Completed, or raises a RuntimeFault."""

    def __aiter__(self) -> AsyncIterator[GenerationUpdate]: ...

    def cancel(self, reason: FinishReason = FinishReason.CANCELLED) -> None:
        """Stops at the next step; may be called at any time and again."""
        ...

    async def gather(self, seconds: float) -> None:
        """Between two updates: lets tokens gather into one delta; the end cuts it short."""
        ...


class EnginePort(Protocol):
    plan: MemoryPlan

    @property
    def info(self) -> ModelInfo:
        """Its adapters change as users' come and go."""
        ...

    @property
    def is_alive(self) -> bool: ...

    @property
    def load(self) -> EngineLoad: ...

    def on_change(self, listener: Callable[[bool], None]) -> None:
        """Calls `listener(is_alive)` whenever the engine goes down or comes back."""
        ...

    def generate(self, request: GenerationRequest) -> GenerationPort: ...

    async def count(self, prompt: Prompt) -> PromptCount: ...

    async def examine(self, source: ImageSource | VideoSource) -> ImageInfo | VideoInfo:
        """What a picture or clip is; raises the fault that a prompt with it would get."""
        ...

    def price(self, info: ImageInfo | VideoInfo) -> MediaPrice:
        """What it costs as the only one of a message, without any settings."""
        ...

    def tokenize(self, text: str) -> list[int]: ...

    def detokenize(self, token_ids: list[int]) -> str: ...

    async def load_adapter(self, name: str, folder: Path) -> AdapterInfo:
        """Takes a user's adapter, to be asked for by this name."""
        ...

    def unload_adapter(self, name: str, *, seconds: float) -> None:
        """Takes nothing new for it; those who use it have so long to end."""
        ...

    async def close(self) -> None: ...
