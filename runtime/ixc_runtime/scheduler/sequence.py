"""One request on its way through the engine.

Its position is three integers, and everything else is derived from them:

    tokens        |p p p p p p p p p p|o o o o ?|
                   0                  num_prompt
    num_computed  ────────────►                     slots whose keys and values are in the cache,
                                                    or will be when the launched steps are through

Steps may be launched before the ids of the step before have come back: such a token is UNKNOWN
until it lands, and only the device can read it.
"""

from collections import Counter
from dataclasses import dataclass, field

from ixc_runtime.engine_process.messages import ImageSlots, Submit
from ixc_runtime.kv_cache.page_table import PageTable
from ixc_runtime.kv_cache.prefix_index import SlotKey

# Stands in `tokens` for one that is sampled but not back from the device. Image tokens are -1.
UNKNOWN = -2


@dataclass(slots=True, kw_only=True)
class SequenceTimes:
    """Moments and durations in seconds of the engine's clock."""

    submitted: float
    started: float = 0.0
    pixels_wanted: float = 0.0
    media: float = 0.0  # waiting for pixels
    vision: float = 0.0  # encoding this sequence's images


@dataclass(eq=False, slots=True, kw_only=True)
class Sequence:
    """`slots` name what each token of the prompt is, for the prefix index; generated ones join."""

    request: Submit
    namespace: bytes
    rotary_base: float
    times: SequenceTimes
    num_prompt: int = field(init=False)
    tokens: list[int] = field(init=False)
    slots: list[SlotKey] = field(init=False)
    generated: Counter[int] = field(default_factory=Counter)
    num_computed: int = 0
    encoded_tiles: int = 0
    wanted_images: list[bytes] = field(default_factory=list)  # keys this sequence holds on to
    awaited_images: set[bytes] = field(default_factory=set)  # those that were not encoded before
    table: PageTable | None = None  # set when the sequence is admitted

    def __post_init__(self) -> None:
        self.num_prompt = len(self.request.token_ids)
        self.tokens = list(self.request.token_ids)
        self.slots = list(self.request.token_ids)
        for image in self.request.images:
            for offset in range(image.num_tokens):
                self.slots[image.start + offset] = (image.key, offset)

    @property
    def sequence_id(self) -> str:
        return self.request.sequence_id

    @property
    def num_output(self) -> int:
        """Sampled tokens, those on their way included."""
        return len(self.tokens) - self.num_prompt

    @property
    def awaits_its_token(self) -> bool:
        """Whether the next token cannot be drawn before the newest one is known: a word is banned
        by its last token, once those before it have been drawn.
        """
        return self.tokens[-1] == UNKNOWN and any(
            len(word) > 1 for word in self.request.bad_word_ids
        )

    @property
    def is_decoding(self) -> bool:
        """All but the newest token computed: one row a step."""
        return self.num_computed >= self.num_prompt

    @property
    def max_slots(self) -> int:
        """The last sampled token is never computed, so it needs no slot of its own."""
        return self.num_prompt + max(1, self.max_output) - 1

    @property
    def max_output(self) -> int:
        limit = self.request.sampling.max_output_tokens
        assert limit is not None, "the front end fills every setting in"
        return limit

    @property
    def missing_images(self) -> list[ImageSlots]:
        """Images with a slot that is not computed yet."""
        return [
            image
            for image in self.request.images
            if image.start + image.num_tokens > self.num_computed
        ]

    def expect(self) -> None:
        """A step that samples the next token is on its way."""
        self.tokens.append(UNKNOWN)
        self.slots.append(UNKNOWN)

    def land(self, index: int, token_id: int) -> None:
        """The token at `index` is known."""
        assert self.tokens[index] == UNKNOWN, "a token lands once"
        self.tokens[index] = self.slots[index] = token_id
        self.generated[token_id] += 1
