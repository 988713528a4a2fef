"""What the service asks of an engine: `ixc_runtime.Engine` has it, and so has the tests' fake."""

from collections.abc import AsyncIterator, Callable
from typing import Protocol

from ixc_runtime import (
    EngineLoad,
    FinishReason,
    GenerationRequest,
    GenerationUpdate,
    MemoryPlan,
    ModelInfo,
    Prompt,
    PromptCount,
)


class GenerationPort(Protocol):
    """One answer. Iterating it runs it; it ends with Completed, or raises a RuntimeFault."""

    def __aiter__(self) -> AsyncIterator[GenerationUpdate]: ...

    def cancel(self, reason: FinishReason = FinishReason.CANCELLED) -> None:
        """Stops at the next step; may be called at any time and again."""
        ...


class EnginePort(Protocol):
    info: ModelInfo
    plan: MemoryPlan

    @property
    def is_alive(self) -> bool: ...

    @property
    def load(self) -> EngineLoad: ...

    def on_change(self, listener: Callable[[bool], None]) -> None:
        """Calls `listener(is_alive)` whenever the engine goes down or comes back."""
        ...

    def generate(self, request: GenerationRequest) -> GenerationPort: ...

    async def count(self, prompt: Prompt) -> PromptCount: ...

    def tokenize(self, text: str) -> list[int]: ...

    def detokenize(self, token_ids: list[int]) -> str: ...

    async def close(self) -> None: ...
