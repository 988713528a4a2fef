"""Clips through the whole engine: priced from the header, decoded by a worker, answered."""

from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path

import pytest
import pytest_asyncio
from PIL import Image

from ixc_runtime import (
    Completed,
    Conversation,
    Engine,
    EngineConfig,
    GenerationRequest,
    GenerationUpdate,
    ImagePart,
    ImageSource,
    Message,
    PromptProcessed,
    Role,
    SamplingParams,
    TextDelta,
    TextPart,
    VideoPart,
    VideoSource,
    errors,
)
from tests.fakes.clips import made_clip, real_clip
from tests.fakes.tiny_checkpoint import write_tiny_checkpoint
from tests.fakes.tiny_tokenizer import write_tokenizer_model

pytestmark = pytest.mark.asyncio(loop_scope="module")

GREEDY = SamplingParams(temperature=0.0, max_output_tokens=8)
QUESTION = TextPart(text="Here are some frames of a video. Describe it.")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Engine]:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    write_tiny_checkpoint(folder, vocab=1000, max_positions=1024)
    write_tokenizer_model(folder, vocab_size=1000)
    config = EngineConfig(model=str(folder), max_batch=4, threads=1)
    engine = await Engine.start(config, in_process=True)
    yield engine
    assert await engine.check_integrity() == []
    await engine.close()


def source(path: Path) -> VideoSource:
    return VideoSource(digest=sha256(path.read_bytes()).hexdigest(), path=path)


def conversation(*parts: TextPart | ImagePart | VideoPart) -> Conversation:
    return Conversation(messages=(Message(role=Role.USER, parts=parts),))


async def hear(engine: Engine, prompt: Conversation) -> list[GenerationUpdate]:
    request = GenerationRequest(prompt=prompt, sampling=GREEDY)
    return [update async for update in engine.generate(request)]


def ids(updates: list[GenerationUpdate]) -> list[int]:
    deltas = [update for update in updates if isinstance(update, TextDelta)]
    return [token_id for delta in deltas for token_id in delta.token_ids]


async def test_a_clip_is_answered_for_the_price_it_was_given(engine: Engine) -> None:
    """Ten seconds are ten frames in five tiles, told beforehand and encoded once."""
    prompt = conversation(VideoPart(source=source(real_clip("bikes.mp4"))), QUESTION)
    count = await engine.count(prompt)
    first = await hear(engine, prompt)
    again = await hear(engine, prompt)
    (span,) = count.images
    processed, completed = first[1], first[-1]
    assert isinstance(processed, PromptProcessed)
    assert isinstance(completed, Completed)

    assert span.frames == tuple(range(0, 250, 25))
    assert (span.tiles_wide, span.tiles_high) == (1, 5)
    assert span.num_tokens == (5 + 1) * 4 + 1 + (5 + 1) * 2
    assert (count.usage.num_videos, count.usage.video_tokens) == (1, span.num_tokens)
    assert (count.usage.num_images, count.usage.image_tokens) == (0, 0)
    assert processed.encoded_tiles == 6
    assert completed.usage.prompt_tokens == count.usage.prompt_tokens
    assert completed.usage.video_tokens == span.num_tokens
    assert ids(first)
    assert ids(again) == ids(first)
    assert isinstance(again[-1], Completed)
    assert again[-1].usage.cached_tokens >= span.start + span.num_tokens


async def test_what_the_clip_shows_reaches_the_answer(engine: Engine) -> None:
    """Other seconds of the same clip are other pixels, and give another answer."""
    film = source(real_clip("bikes.mp4"))
    prompts = [
        conversation(VideoPart(source=film, start_seconds=start, max_frames=2), QUESTION)
        for start in (0.0, 5.0)
    ]
    answers = [ids(await hear(engine, prompt)) for prompt in prompts]
    assert answers[0] != answers[1]


async def test_a_clip_beside_a_picture(engine: Engine, tmp_path: Path) -> None:
    """Each is decoded by workers of its own and counted as its own."""
    path = tmp_path / "picture.png"
    Image.new("RGB", (80, 50), "orange").save(path)
    picture = ImageSource(digest=sha256(path.read_bytes()).hexdigest(), path=path)
    prompt = conversation(
        VideoPart(source=source(made_clip("vp9.webm"))),
        ImagePart(source=picture),
        TextPart(text="Which is brighter?"),
    )
    count = await engine.count(prompt)
    updates = await hear(engine, prompt)

    assert (count.usage.num_videos, count.usage.num_images) == (1, 1)
    assert [span.is_video for span in count.images] == [True, False]
    assert isinstance(updates[-1], Completed)


@pytest.mark.parametrize(
    ("part", "fault", "said"),
    [
        (
            VideoPart(source=source(made_clip("av1.mp4"))),
            errors.MediaTypeUnsupported,
            "codec AV1 is not supported",
        ),
        (
            VideoPart(source=source(made_clip("no-duration.webm"))),
            errors.MediaUndecodable,
            "remux it first",
        ),
        (
            VideoPart(source=source(made_clip("vp9.webm")), max_frames=65),
            errors.FieldInvalid,
            "max_frames is 65; 1 to 64",
        ),
        (
            ImagePart(
                source=ImageSource(
                    digest=source(made_clip("vp9.webm")).digest, path=made_clip("vp9.webm")
                )
            ),
            errors.MediaTypeUnsupported,
            "not a PNG",
        ),
    ],
    ids=["av1", "no duration", "too many frames", "a clip sent as a picture"],
)
async def test_what_cannot_be_shown_is_refused_before_any_work(
    engine: Engine, part: VideoPart | ImagePart, fault: type[Exception], said: str
) -> None:
    """With its reason, by counting and answering alike."""
    prompt = conversation(part, QUESTION)
    with pytest.raises(fault, match=said):
        await engine.count(prompt)
    with pytest.raises(fault, match=said):
        await hear(engine, prompt)
