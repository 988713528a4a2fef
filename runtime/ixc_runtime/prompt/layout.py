r"""From a conversation to the token ids of its prompt, with every image's slots in place.

Pure: sizes of images are given, nothing is read. The layout is the one the model was trained on:

    BOS  START system\n{instruction}END \n
         START user\n{question}END \n  START assistant\n{answer}END \n   (history)
         START user\n{question}END \n  START assistant\n                  (the turn to answer)

Text between two control ids or images is tokenised as one run, so "user\n" and the question
are tokenised together. A lone image that opens the first user message goes before everything but
BOS, even before the system turn. Any other image stands where its part stands, written
"Image1 " <image> "; ", counted over the whole conversation. A clip is an image here, as it is to
the model: one strip of frames. No words are added for it.

Every message is laid out by itself: what an earlier turn looks like never depends on a later one.
With answers given as the tokens the model produced (`TokensPart`), the prompt of each turn
therefore continues the prompt of the turn before, and its cached pages stay valid.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from ixc_runtime.config import IxcSettings, TowerShape
from ixc_runtime.errors import EngineFault, FieldInvalid, NotOffered, PromptEmpty, TokenIdOutOfVocab
from ixc_runtime.media.geometry import (
    TRANSFORM_VERSION,
    ImageInfo,
    TilePlan,
    num_image_tokens,
    plan_tiles,
)
from ixc_runtime.media.video import STRIP_VERSION, VideoInfo, plan_strip, sample_frames
from ixc_runtime.prompt.tokenizer import Roles, Tokenizer
from ixc_runtime.request import (
    Conversation,
    ImagePart,
    ImageSource,
    Message,
    Part,
    Role,
    TextPart,
    TokensPart,
    VideoPart,
    VideoSource,
)

# Stands in `token_ids` at every slot that an image's features will fill.
IMAGE_TOKEN = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSpan:
    """One image in a prompt: `num_tokens` slots from `start`. Equal `key`: equal pixels.

    A picture has an `hd_num`; a clip has `frames`, the indices of those in its strip.
    """

    source: ImageSource | VideoSource
    width: int  # pixels, as sent; of a clip, those of a frame
    height: int
    hd_num: int | None
    frames: tuple[int, ...] = ()
    tiles_wide: int
    tiles_high: int
    start: int
    num_tokens: int
    key: bytes

    @property
    def is_video(self) -> bool:
        return isinstance(self.source, VideoSource)


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptLayout:
    token_ids: tuple[int, ...]
    images: tuple[ImageSpan, ...]

    @property
    def num_image_tokens(self) -> int:
        """Slots of pictures."""
        return sum(span.num_tokens for span in self.images if not span.is_video)

    @property
    def num_video_tokens(self) -> int:
        """Slots of clips."""
        return sum(span.num_tokens for span in self.images if span.is_video)


def lay_out(
    conversation: Conversation,
    *,
    tokenizer: Tokenizer,
    roles: Roles,
    settings: IxcSettings,
    tower: TowerShape | None,
    media_info: Mapping[str, ImageInfo | VideoInfo],
) -> PromptLayout:
    """Lay a conversation out. `media_info` is keyed by digest and covers every image and clip."""
    _check_last_message(conversation)
    builder = _Builder(tokenizer, roles, settings, tower, media_info)
    if roles.begin_of_text is not None:
        builder.add_control(roles.begin_of_text)

    messages = conversation.messages
    first = next(index for index, turn in enumerate(messages) if turn.role is Role.USER)
    leading = _leading_image(messages[first])
    if leading is not None:
        builder.add_image(leading, num_images=1)
    if conversation.system_instruction:
        system = TextPart(text=conversation.system_instruction)
        builder.add_message(Message(role=Role.SYSTEM, parts=(system,)))
    for index, message in enumerate(messages):
        builder.add_message(message, skip=leading if index == first else None)
    builder.open_turn(Role.ASSISTANT)
    return builder.build()


def _check_last_message(conversation: Conversation) -> None:
    if not conversation.messages:
        raise PromptEmpty("the conversation has no messages")
    last = conversation.messages[-1]
    if last.role is not Role.USER:
        raise FieldInvalid("contents", f"the last message is the {last.role}'s, not the user's")
    if not any(_has_content(part) for part in last.parts):
        raise PromptEmpty("the last message has neither text nor an image")


def _has_content(part: Part) -> bool:
    match part:
        case TextPart(text=text):
            return bool(text)
        case TokensPart(token_ids=token_ids):
            return bool(token_ids)
        case ImagePart() | VideoPart():
            return True


def _leading_image(message: Message) -> ImagePart | VideoPart | None:
    """The image that goes before everything: alone in the message, before its text.

    A caller who gave it a label wants it named, so it then stays in place.
    """
    parts = [part for part in message.parts if _has_content(part)]
    images = [part for part in parts if isinstance(part, ImagePart | VideoPart)]
    if len(images) == 1 and parts[0] is images[0] and not images[0].label:
        return images[0]
    return None


class _Builder:
    """The prompt so far, and the run of text that is not tokenised yet."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        roles: Roles,
        settings: IxcSettings,
        tower: TowerShape | None,
        media_info: Mapping[str, ImageInfo | VideoInfo],
    ) -> None:
        self._tokenizer = tokenizer
        self._roles = roles
        self._settings = settings
        self._tower = tower
        self._media_info = media_info
        self._token_ids: list[int] = []
        self._images: list[ImageSpan] = []
        self._text: list[str] = []

    def add_message(self, message: Message, *, skip: ImagePart | VideoPart | None = None) -> None:
        """One closed turn. `skip` is the image that already stands before everything."""
        num_images = sum(isinstance(part, ImagePart | VideoPart) for part in message.parts)
        self.open_turn(message.role)
        for part in message.parts:
            match part:
                case TextPart(text=text):
                    self._text.append(text)
                case TokensPart(token_ids=token_ids):
                    self._add_tokens(token_ids)
                case ImagePart() | VideoPart() if part is not skip:
                    self._text.append(f"{part.label or f'Image{len(self._images) + 1}'} ")
                    self.add_image(part, num_images=num_images)
                    self._text.append("; ")
        self.add_control(self._roles.end_of_turn)
        self._text.append("\n")

    def open_turn(self, role: Role) -> None:
        self.add_control(self._roles.start_of_turn)
        self._text.append(f"{role}\n")

    def add_control(self, token_id: int) -> None:
        self._flush_text()
        self._token_ids.append(token_id)

    def add_image(self, part: ImagePart | VideoPart, *, num_images: int) -> None:
        """`num_images` of its message decides a picture's default tiling."""
        if self._tower is None:
            raise NotOffered(
                "this model takes no images: its checkpoint has no image tower", feature="images"
            )
        self._flush_text()
        info = self._media_info.get(part.source.digest)
        tile_size, side = self._tower.tile_size, self._tower.grid // 2
        hd_num: int | None = None
        frames: tuple[int, ...] = ()
        match part, info:
            case ImagePart(), ImageInfo():
                hd_num = self._hd_num(part, num_images)
                plan = plan_tiles(info.width, info.height, hd_num=hd_num, tile_size=tile_size)
                key = _pixels_key(part.source.digest, plan, tile_size)
            case VideoPart(), VideoInfo():
                frames = _frames(part, info)
                strip = plan_strip(
                    info.width, info.height, num_frames=len(frames), tile_size=tile_size
                )
                plan = strip.tiles
                key = _strip_key(part.source.digest, frames, tile_size)
            case _:
                raise EngineFault("an image or a clip was laid out before its size was known")
        num_tokens = num_image_tokens(plan.tiles_wide, plan.tiles_high, side)
        self._images.append(
            ImageSpan(
                source=part.source,
                width=info.width,
                height=info.height,
                hd_num=hd_num,
                frames=frames,
                tiles_wide=plan.tiles_wide,
                tiles_high=plan.tiles_high,
                start=len(self._token_ids),
                num_tokens=num_tokens,
                key=key,
            )
        )
        self._token_ids += [IMAGE_TOKEN] * num_tokens

    def build(self) -> PromptLayout:
        self._flush_text()
        return PromptLayout(token_ids=tuple(self._token_ids), images=tuple(self._images))

    def _add_tokens(self, token_ids: tuple[int, ...]) -> None:
        """Ids as they are. The model's own bound is checked by whoever knows the model."""
        self._flush_text()
        if (lowest := min(token_ids, default=0)) < 0:  # would read as an image's slot
            raise TokenIdOutOfVocab(f"token id {lowest} is negative", tokenId=lowest)
        self._token_ids += token_ids

    def _hd_num(self, part: ImagePart, num_images: int) -> int:
        settings = self._settings
        if part.hd_num is None:
            return settings.hd_num_single if num_images == 1 else settings.hd_num_several
        if not 1 <= part.hd_num <= settings.max_hd_num:
            raise FieldInvalid(
                "hd_num",
                f"hd_num is {part.hd_num}; this model takes 1 to {settings.max_hd_num}",
                value=part.hd_num,
                maximum=settings.max_hd_num,
            )
        return part.hd_num

    def _flush_text(self) -> None:
        if text := "".join(self._text):
            self._token_ids += self._tokenizer.encode(text)
        self._text.clear()


def _pixels_key(digest: str, plan: TilePlan, tile_size: int) -> bytes:
    """Names the transformed pixels: the encoded bytes and all that the transform does with them.

    By the size it resamples to rather than by `hd_num`, since bounds of 6 and of 24 make the same
    tiles of a small picture, which then share one encoding.
    """
    name = f"{TRANSFORM_VERSION}:{tile_size}:{plan.width}x{plan.height}:{digest}"
    return hashlib.sha256(name.encode()).digest()


def _frames(part: VideoPart, info: VideoInfo) -> tuple[int, ...]:
    return sample_frames(
        info,
        max_frames=part.max_frames,
        fps=part.fps,
        start_seconds=part.start_seconds,
        end_seconds=part.end_seconds,
    )


def _strip_key(digest: str, frames: tuple[int, ...], tile_size: int) -> bytes:
    """Names a strip's pixels. Different wishes that choose the same frames share one encoding."""
    chosen = ",".join(map(str, frames))
    return hashlib.sha256(f"strip {STRIP_VERSION}:{tile_size}:{chosen}:{digest}".encode()).digest()
