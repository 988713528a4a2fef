"""What a loaded engine says of itself: the model it serves and the memory it took.

Plain values that cross the process boundary (msgspec) and are served by ModelService.
"""

import msgspec

from ixc_runtime.request import SamplingParams


class AdapterInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A user's adapter that is resident beside the model's own."""

    name: str
    digest: str  # SHA-256 over its settings and tensors, hex
    rank: int  # the largest, where linears differ
    num_bytes: int


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The model as users see it. Ids are of its own vocabulary; sizes in tokens and pixels."""

    name: str
    display_name: str
    description: str
    digest: str  # SHA-256 over the checkpoint, hex
    context_limit: int  # tokens of prompt and answer together
    native_context_limit: int  # what the model was trained for
    vocab_size: int
    num_layers: int
    adapters: tuple[str, ...]  # always "base", then the checkpoint's, then the users'
    tile_size: int | None  # pixels; None: no tower, no pictures
    hd_num_single: int
    hd_num_several: int
    hd_num_max: int
    max_image_tokens: int  # of a picture that uses all of hd_num_single; 0 without a tower
    stop_token_ids: tuple[int, ...]
    default_sampling: SamplingParams
    system_instruction: str | None  # what the model's makers suggest; never used unasked
    dtype: str
    quantization: str | None
    user_adapters: tuple[AdapterInfo, ...] = ()  # those that came at run time


class MemoryPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine took at start, and what fits. Bytes unless the name says otherwise."""

    device: str
    backend: str  # which implementation of the operations runs
    weights_bytes: int  # all that is resident, the checkpoint's adapters among it
    adapters_bytes: int
    adapter_room_bytes: int | None = None  # for users' adapters; None: of what the host has free
    scratch_bytes: int = 0  # of a GPU, what steps, graphs and the tower work in
    kv_bytes: int
    kv_dtype: str
    page_size: int  # slots
    num_pages: int
    bytes_per_token: int
    max_batch: int  # sequences in one step
    max_step_tokens: int
    tiles_per_step: int
    queue_limit: int

    @property
    def capacity_tokens(self) -> int:
        return self.num_pages * self.page_size

    @property
    def total_bytes(self) -> int:
        """Of the device, as it was divided at start."""
        room = self.adapter_room_bytes or 0
        return self.weights_bytes + room + self.scratch_bytes + self.kv_bytes


class EngineLoad(msgspec.Struct, frozen=True, kw_only=True):
    """How busy the engine is, as of its last step."""

    running: int = 0
    waiting: int = 0
    pages_used: int = 0
    pages_indexed: int = 0
    pages_total: int = 0
    num_steps: int = 0
