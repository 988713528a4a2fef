"""The demo model answers on a GPU what it answers on a CPU, whatever is asked.

On the CPU in float32, on the GPU in half precision with our kernels, all questions in one batch
there. An answer may leave the CPU's only where the CPU's two best tokens were so close that
rounding decides; behind such a place the answers are different texts, and no more is compared.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ixc_runtime.config import load_config, load_settings
from ixc_runtime.engine_process.core import EngineCore
from ixc_runtime.engine_process.messages import EngineConfig
from ixc_runtime.engine_process.process import make_core
from ixc_runtime.media.geometry import ImageInfo
from ixc_runtime.media.strip import draw_strip, transform_strip
from ixc_runtime.media.transform import transform_image
from ixc_runtime.media.video import VideoInfo, plan_strip
from ixc_runtime.model.loader import load_model
from ixc_runtime.prompt.layout import PromptLayout, lay_out
from ixc_runtime.prompt.tokenizer import load_tokenizer, resolve_roles
from ixc_runtime.request import (
    Conversation,
    ImagePart,
    ImageSource,
    Message,
    Part,
    Role,
    TextPart,
    VideoPart,
    VideoSource,
)
from models.demo.drawing import EVALUATION_SEEDS, draw
from tests.fakes.engine_driver import EngineDriver, Outcome, Picture

pytestmark = [pytest.mark.demo, pytest.mark.timeout(900)]

MAX_OUTPUT = 40
# How far apart two tokens' log-probabilities are before rounding may not swap them.
NEAR_TIE = {"bfloat16": 0.25, "float16": 0.05}
# Of all answers, at least so many to the last token.
EQUAL = 0.8

TEXTS = (
    ("base", "What is the capital of France?"),
    ("base", "Why is the sky blue?"),
    ("base", "Translate 'good morning' into French."),
    ("web", "A page for a small bakery with its opening hours."),
    ("write", "Write an article about bicycles."),
)
# One picture, several, a clip.
DRAWN = ("colour", "shape", "count", "place", "word", "none", "compare", "direction")
SEEDS = range(EVALUATION_SEEDS.start + 77, EVALUATION_SEEDS.start + 79)


@dataclass(frozen=True, kw_only=True)
class Canvas(Picture):
    """A picture, or a clip's strip, as the media workers leave it."""

    image: Image.Image

    @property
    def key(self) -> bytes:
        return sha256(self.image.tobytes()).digest()

    def pixels(self, tile_size: int) -> np.ndarray:
        return np.asarray(self.image)


@dataclass(frozen=True, kw_only=True)
class Asked:
    name: str
    adapter: str
    prompt: tuple[int | Picture, ...]


class Desk:
    """Lays questions out as the front end does, their pictures held in memory."""

    def __init__(self, folder: Path) -> None:
        tower = load_model(folder).tower
        assert tower is not None
        self._tower = tower
        self._settings = load_settings(folder)
        self._tokenizer = load_tokenizer(folder)
        self._stop_ids = resolve_roles(self._tokenizer, self._settings).stop_ids

    def asked(self) -> Iterator[Asked]:
        for number, (adapter, question) in enumerate(TEXTS):
            yield self._ask(f"text {number}", adapter, question, ())
        for task in DRAWN:
            for seed in SEEDS:
                example = draw(task, seed)
                question = example.turns[0].question
                shown = example.pictures or (example.frames,)
                yield self._ask(f"{task} {seed}", "base", question, shown)

    def _ask(
        self,
        name: str,
        adapter: str,
        question: str,
        shown: Sequence[Image.Image | Sequence[Image.Image]],
    ) -> Asked:
        parts: list[Part] = []
        info: dict[str, ImageInfo | VideoInfo] = {}
        for number, each in enumerate(shown):
            digest, path = f"{name} {number}", Path("in memory")
            if isinstance(each, Image.Image):
                info[digest] = ImageInfo(width=each.width, height=each.height, format="PNG")
                parts.append(ImagePart(source=ImageSource(digest=digest, path=path)))
            else:
                info[digest] = VideoInfo(
                    width=each[0].width,
                    height=each[0].height,
                    num_frames=len(each),
                    fps=1.0,
                    format="MP4",
                    codec="H.264",
                )
                parts.append(VideoPart(source=VideoSource(digest=digest, path=path)))
        message = Message(role=Role.USER, parts=(*parts, TextPart(text=question)))
        layout = lay_out(
            Conversation(
                messages=(message,),
                system_instruction=self._settings.system_instruction if not shown else None,
            ),
            tokenizer=self._tokenizer,
            roles=resolve_roles(self._tokenizer, self._settings),
            settings=self._settings,
            tower=self._tower,
            media_info=info,
        )
        return Asked(name=name, adapter=adapter, prompt=tuple(self._parts(layout, shown)))

    def _parts(
        self, layout: PromptLayout, shown: Sequence[Image.Image | Sequence[Image.Image]]
    ) -> Iterator[int | Picture]:
        place = 0
        for span, each in zip(layout.images, shown, strict=True):
            yield from layout.token_ids[place : span.start]
            tile_size = self._tower.tile_size
            if isinstance(each, Image.Image):
                assert span.hd_num is not None
                image = transform_image(each, hd_num=span.hd_num, tile_size=tile_size)
            else:
                frames = [each[index] for index in span.frames]
                plan = plan_strip(
                    span.width, span.height, num_frames=len(frames), tile_size=tile_size
                )
                image = transform_strip(draw_strip(frames, plan), plan)
            yield Canvas(image=image, wide=span.tiles_wide, high=span.tiles_high)
            place = span.start + span.num_tokens
        yield from layout.token_ids[place:]

    def answers(self, core: EngineCore) -> dict[str, Outcome]:
        """All questions at once, beyond the ends of their answers; see `answer`."""
        driver = EngineDriver(core, tile_size=self._tower.tile_size, side=self._tower.grid // 2)
        for each in self.asked():
            driver.submit(
                each.name,
                each.prompt,
                adapter=each.adapter,
                max_output=MAX_OUTPUT,
                top_logprobs=2,
            )
        return driver.run()

    def text(self, ids: Sequence[int]) -> str:
        return b"".join(map(self._tokenizer.token_bytes, ids)).decode(errors="replace")

    def answer(self, outcome: Outcome) -> list[int]:
        """Up to and with the id that ends it."""
        ids = outcome.ids
        ends = [place for place, each in enumerate(ids) if each in self._stop_ids]
        return ids[: ends[0] + 1] if ends else ids


@pytest.fixture(scope="module")
def desk(demo_model: Path) -> Desk:
    return Desk(demo_model)


@pytest.fixture(scope="module")
def expected(demo_model: Path, desk: Desk) -> dict[str, Outcome]:
    config = EngineConfig(model=str(demo_model), max_batch=32, max_context=4096)
    core, _ = make_core(load_model(demo_model), config, digest="digest")
    return desk.answers(core)


def cuda_core(folder: Path, dtype: str) -> EngineCore:
    from ixc_runtime.ops.cuda import CudaOps

    config = EngineConfig(
        model=str(folder), device="cuda", max_batch=32, max_context=4096, kv_bytes=2**30
    )
    ops = CudaOps(load_config(folder), max_sequences=32)
    model = load_model(folder, device="cuda", dtype=dtype, ops=ops)
    core, _ = make_core(model, config, digest="digest")
    return core


@pytest.mark.parametrize("dtype", NEAR_TIE)
def test_answers_are_the_cpus(
    demo_model: Path, desk: Desk, expected: dict[str, Outcome], dtype: str
) -> None:
    """Token for token, up to places where rounding decides; those are printed."""
    ours = desk.answers(cuda_core(demo_model, dtype))
    num_equal = 0
    unlike = []
    for name, outcome in expected.items():
        here, there = desk.answer(ours[name]), desk.answer(outcome)
        if here == there:
            num_equal += 1
            continue
        place = next(at for at, (a, b) in enumerate(zip(here, there, strict=False)) if a != b)
        margin = margin_at(outcome, place)
        told = f"{name}: {desk.text(there)!r}, here {desk.text(here)!r}, margin {margin:.3f}"
        print(told)
        if margin > NEAR_TIE[dtype]:
            unlike.append(told)
    print(f"{num_equal} of {len(expected)} answers are equal to the last token in {dtype}")
    assert not unlike
    assert num_equal >= EQUAL * len(expected)


def margin_at(outcome: Outcome, place: int) -> float:
    """Between the two best at that place of the answer."""
    best, second = (logprob for _, logprob in outcome.logprobs[place].top)
    return best - second
