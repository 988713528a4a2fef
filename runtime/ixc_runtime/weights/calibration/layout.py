"""Samples as the model would meet them: laid out as prompts, pictures cut into tiles.

The prompt's layout, the tokenizer and the transform are the product's own. Picture files come from
users: they are decoded by a media worker, confined like any other.
"""

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ixc_runtime.config import TowerShape
from ixc_runtime.errors import FieldInvalid, PromptEmpty
from ixc_runtime.media.geometry import ImageInfo
from ixc_runtime.media.transform import transform_image
from ixc_runtime.prompt.layout import lay_out
from ixc_runtime.prompt.tokenizer import Roles, Tokenizer, load_tokenizer, resolve_roles
from ixc_runtime.request import (
    BASE_ADAPTER,
    Conversation,
    ImagePart,
    ImageSource,
    Message,
    Role,
    TextPart,
)
from ixc_runtime.weights.settings import Sample
from ixc_runtime.weights.source import Source
from ixc_runtime.weights.walk import Passage

_MIN_TOKENS = 16


def lay_out_samples(
    model: Source, samples: Sequence[Sample], *, max_tokens: int
) -> tuple[Passage, ...]:
    """Long texts become several passages of `max_tokens`; a chat's words, question and answer
    together, are cut to that many.
    """
    if max_tokens < _MIN_TOKENS:
        raise FieldInvalid(
            "max_sample_tokens", f"max_sample_tokens is {max_tokens}; at least {_MIN_TOKENS} helps"
        )
    for number, sample in enumerate(samples):
        if sample.image is not None and sample.answer is None:
            raise FieldInvalid(
                f"samples[{number}].answer", "a picture needs a text and an answer about it"
            )
    tokenizer = load_tokenizer(model.folder)
    layout = _Layout(model, tokenizer, resolve_roles(tokenizer, model.settings), max_tokens)
    rendered = _render(model, samples)
    passages: list[Passage] = []
    for number, sample in enumerate(samples):
        if sample.answer is None:
            passages += layout.texts(sample)
        else:
            passages.append(layout.chat(sample, rendered.get(number)))
    if not passages:
        raise PromptEmpty("the samples hold no two tokens of text")
    return tuple(passages)


class _Layout:
    def __init__(self, model: Source, tokenizer: Tokenizer, roles: Roles, max_tokens: int) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._roles = roles
        self._max_tokens = max_tokens

    def texts(self, sample: Sample) -> list[Passage]:
        ids = self._tokenizer.encode(sample.text)
        begin = [] if self._roles.begin_of_text is None else [self._roles.begin_of_text]
        room = self._max_tokens - len(begin)
        windows = [begin + ids[start : start + room] for start in range(0, len(ids), room)]
        return [
            Passage(
                token_ids=tuple(window),
                adapter=self._adapter(sample),
                judged=slice(0, len(window) - 1),
            )
            for window in windows
            if len(window) > 1
        ]

    def chat(self, sample: Sample, picture: "_Rendered | None") -> Passage:
        """The turn as it is asked, then the answer and the end of its turn."""
        assert sample.answer is not None
        question, num_tokens = self._cut(sample.text)
        parts = (*((picture.part,) if picture else ()), TextPart(text=question))
        prompt = lay_out(
            Conversation(messages=(Message(role=Role.USER, parts=parts),)),
            tokenizer=self._tokenizer,
            roles=self._roles,
            settings=self._model.settings,
            tower=picture.tower if picture else None,
            media_info={picture.part.source.digest: picture.info} if picture else {},
        )
        answer = self._tokenizer.encode(sample.answer)[: self._max_tokens - num_tokens]
        ids = (*prompt.token_ids, *answer, self._roles.end_of_turn)
        return Passage(
            token_ids=ids,
            canvases=(picture.canvas,) if picture else (),
            adapter=self._adapter(sample),
            judged=slice(len(prompt.token_ids) - 1, len(ids) - 1),
        )

    def _cut(self, question: str) -> tuple[str, int]:
        """As much of it as leaves half of the tokens to an answer, and how many it takes."""
        ids = self._tokenizer.encode(question)
        room = self._max_tokens // 2
        if len(ids) <= room:
            return question, len(ids)
        kept = b"".join(map(self._tokenizer.token_bytes, ids[:room]))
        return kept.decode(errors="ignore"), room

    def _adapter(self, sample: Sample) -> str:
        offered = sample.adapter in self._model.inventory.adapters
        return sample.adapter if offered else BASE_ADAPTER


class _Rendered:
    """A picture, what the layout calls it, and its pixels after the transform."""

    def __init__(self, name: str, info: ImageInfo, canvas: Tensor, tower: TowerShape) -> None:
        digest = hashlib.sha256(name.encode()).hexdigest()
        self.part = ImagePart(source=ImageSource(digest=digest, path=Path(name)))
        self.info = info
        self.canvas = canvas
        self.tower = tower


def _render(model: Source, samples: Sequence[Sample]) -> Mapping[int, _Rendered]:
    pictures = {
        number: sample.image for number, sample in enumerate(samples) if sample.image is not None
    }
    if not pictures:
        return {}
    if model.inventory.tower is None:
        raise FieldInvalid(
            f"samples[{min(pictures)}].image", "this model takes no pictures: it has no tower"
        )
    tower, hd_num = model.inventory.tower.shape, model.settings.hd_num_single
    rendered: dict[int, _Rendered] = {}
    files = {number: image for number, image in pictures.items() if isinstance(image, Path)}
    for number, image in pictures.items():
        if not isinstance(image, Path):
            info = ImageInfo(width=image.width, height=image.height, format="PNG")
            canvas = transform_image(image, hd_num=hd_num, tile_size=tower.tile_size)
            pixels = _tensor(canvas.tobytes(), canvas.height, canvas.width)
            rendered[number] = _Rendered(f"sample {number}", info, pixels, tower)
    if files:
        rendered |= asyncio.run(_decode(files, tower, hd_num))
    return rendered


async def _decode(
    files: Mapping[int, Path], tower: TowerShape, hd_num: int
) -> dict[int, _Rendered]:
    """One after another, in one worker: there are few, and calibration takes far longer."""
    # Not needed for pictures drawn here, nor is all that it loads.
    from ixc_runtime.media.pixels_folder import PixelsFolder
    from ixc_runtime.media.pool import MediaWorkers
    from ixc_runtime.media.worker_settings import MediaSettings

    folder = PixelsFolder.create()
    workers = MediaWorkers(num_workers=1, settings=MediaSettings())
    rendered: dict[int, _Rendered] = {}
    try:
        await workers.start()
        for number, path in files.items():
            info = await workers.probe(path)
            image = await workers.render(
                path, hd_num=hd_num, tile_size=tower.tile_size, output_dir=folder.path
            )
            pixels = _tensor(image.path.read_bytes(), image.height, image.width)
            image.path.unlink()
            rendered[number] = _Rendered(f"sample {number}", info, pixels, tower)
    finally:
        await workers.close()
        folder.remove()
    return rendered


def _tensor(pixels: bytes, height: int, width: int) -> Tensor:
    return torch.frombuffer(bytearray(pixels), dtype=torch.uint8).view(height, width, 3)
