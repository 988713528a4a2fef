"""Clips in media workers: what is taken, what is refused and why, and that the pool lives on."""

import random
import re
import struct
from pathlib import Path

import pytest
from PIL import Image

from ixc_runtime.errors import MediaTypeUnsupported, MediaUndecodable, RuntimeFault
from ixc_runtime.media import clip as clip_module
from ixc_runtime.media.clip import ClipReader
from ixc_runtime.media.jobs import JobFailed, Outcome, ProbeVideo, RenderVideo, VideoProbed
from ixc_runtime.media.pool import MediaWorkers
from ixc_runtime.media.strip import draw_strip, transform_strip
from ixc_runtime.media.video import VideoInfo, plan_strip, sample_frames
from ixc_runtime.media.worker import run_job
from ixc_runtime.media.worker_settings import CLIP_SETTINGS, MediaSettings
from tests.fakes.clips import made_clip, real_clip, without_frames, without_time
from tests.unit.runtime.test_media_workers import exists, file_of, hanging

LIMITS = CLIP_SETTINGS.worker_limits


def probe_here(path: Path, **limits) -> Outcome:
    """What a worker says of a clip, asked directly."""
    settings = MediaSettings(kind="clips", max_pixels=CLIP_SETTINGS.max_pixels, **limits)
    return run_job(ProbeVideo(path=str(path)), settings.worker_limits)


def render_here(path: Path, info: VideoProbed, frames: tuple[int, ...], output: Path) -> Outcome:
    output.touch()
    return run_job(
        RenderVideo(
            path=str(path),
            frames=frames,
            width=info.width,
            height=info.height,
            tile_size=56,
            output=str(output),
        ),
        LIMITS,
    )


# What is taken


@pytest.mark.parametrize(
    ("name", "size", "num_frames", "fps"),
    [
        ("bikes.mp4", (640, 272), 250, 25.0),
        ("bigbuckbunny.mp4", (1280, 720), 132, 25.0),
        ("carphone_pristine.mp4", (176, 144), 120, 30000 / 1001),
        ("carphone_distorted.mp4", (176, 144), 120, 30000 / 1001),
    ],
)
def test_real_clips(name, size, num_frames, fps):
    """Counted and measured."""
    probed = probe_here(real_clip(name))
    assert (probed.width, probed.height) == size
    assert (probed.num_frames, probed.format, probed.codec) == (num_frames, "MP4", "H.264")
    assert probed.fps == pytest.approx(fps, rel=1e-12)


@pytest.mark.parametrize(
    ("name", "size", "num_frames", "fps"),
    [
        ("h264.mov", (64, 48), 30, 10.0),
        ("h264.mkv", (64, 48), 30, 10.0),
        ("h265.mp4", (64, 48), 30, 10.0),
        ("vp8.webm", (64, 48), 30, 10.0),
        ("vp9.webm", (64, 48), 30, 10.0),
        ("mpeg4.mp4", (64, 48), 30, 10.0),
        ("fragmented.mp4", (64, 48), 30, 10.0),
        ("rotated.mp4", (48, 64), 30, 10.0),
        ("varying-rate.mp4", (64, 48), 15, 15 / 2.8),
        ("one-frame.mp4", (64, 48), 1, 1.0),
        ("dot.webm", (1, 1), 2, 1.0),
    ],
)
def test_each_kind_of_clip(tmp_path, name, size, num_frames, fps):
    """Every codec and container, and shapes and rates out of the ordinary, make a strip."""
    path, output = made_clip(name), tmp_path / "strip.rgb"
    probed = probe_here(path)
    assert isinstance(probed, VideoProbed)
    assert (probed.width, probed.height, probed.num_frames) == (*size, num_frames)
    assert probed.fps == pytest.approx(fps, rel=1e-6)
    frames = tuple(range(0, num_frames, 10))
    tiles = plan_strip(*size, num_frames=len(frames), tile_size=56).tiles
    rendered = render_here(path, probed, frames, output)
    assert (rendered.width, rendered.height) == (tiles.canvas_width, tiles.canvas_height)
    assert output.stat().st_size == rendered.width * rendered.height * 3


def test_the_strip_of_a_real_clip(tmp_path):
    """The frames named, as reading the clip from its start gives them, in the model's strip."""
    path, output = real_clip("carphone_pristine.mp4"), tmp_path / "strip.rgb"
    frames = (0, 30, 60, 119)
    film = list(ClipReader(path).frames(range(120)))
    plan = plan_strip(176, 144, num_frames=4, tile_size=56)
    expected = transform_strip(draw_strip((film[index] for index in frames), plan), plan)
    render_here(path, probe_here(path), frames, output)
    assert expected.tobytes() == output.read_bytes()


@pytest.mark.parametrize("name", ["carphone_pristine.mp4", "bikes.mp4"])
def test_a_frame_found_by_seeking(name):
    """Any frame, in any order, is the one that reading from the start comes to."""
    film = [frame.tobytes() for frame in ClipReader(real_clip(name)).frames(range(100))]
    reader = ClipReader(real_clip(name))
    for index in (99, 3, 50, 49, 51, 0, 98):
        (frame,) = reader.frames([index])
        assert film[index] == frame.tobytes()


def test_rows_that_the_decoder_pads():
    """A turned clip's rows come padded; the pixels are those of the clip before it was turned."""
    (upright,) = ClipReader(made_clip("h264.mov")).frames([15])
    (turned,) = ClipReader(made_clip("rotated.mp4")).frames([15])
    turned_back = turned.transpose(Image.Transpose.ROTATE_270)
    differences = [
        abs(a - b) for a, b in zip(upright.tobytes(), turned_back.tobytes(), strict=True)
    ]
    assert sum(differences) / len(differences) < 4  # colours are resampled before the turn


# What is refused


@pytest.mark.parametrize("name", ["av1.mp4", "av1.webm", "mjpeg.mov"])
def test_a_codec_that_is_not_supported(name):
    """Told apart from a broken clip, with the codec's name."""
    refused = probe_here(made_clip(name))
    codec = "jpeg" if "jpeg" in name else "AV1"
    assert refused == JobFailed(
        kind="unsupported",
        message=f"the clip's codec {codec} is not supported; H.264, H.265, VP8, VP9, MPEG-4 are",
        codec=codec,
    )


REFUSED = {
    "empty": (b"", "undecodable", "the clip has no bytes"),
    "text": (b"hello", "unsupported", "the data is not an MP4, MOV or WEBM clip"),
    "a still picture": (b"\0\0\0 ftypavif" + bytes(30), "unsupported", "not an MP4"),
    "another container": (b"RIFF\0\0\0\0AVI LIST", "unsupported", "not an MP4"),
    "a WebM signature alone": (b"\x1a\x45\xdf\xa3" + bytes(30), "undecodable", "structure is brok"),
    "an MP4 signature alone": (b"\0\0\0\x0cftypisom", "undecodable", r"\(moov\) is missing"),
    "sound alone": (made_clip("sound-only.mp4").read_bytes(), "undecodable", "no video track"),
    "no duration": (made_clip("no-duration.webm").read_bytes(), "undecodable", "remux it first"),
    "a line": (
        made_clip("line.webm").read_bytes(),
        "undecodable",
        "65535x1; a side may be 20 times",
    ),
    "too large": (
        made_clip("8192x4352.webm").read_bytes(),
        "undecodable",
        "the clip is 8192x4352; frames of 9437184 pixels are taken",
    ),
    "half of it": (real_clip("bikes.mp4").read_bytes()[:300_000], "undecodable", "is cut off"),
    "zero frames": (
        without_frames(made_clip("h264.mov").read_bytes()),
        "undecodable",
        "the clip's index is broken or cut off, or lists no frames",
    ),
    "zero frames of a real clip": (
        without_frames(real_clip("carphone_distorted.mp4").read_bytes()),
        "undecodable",
        "lists no frames",
    ),
}


@pytest.mark.parametrize(("data", "kind", "message"), REFUSED.values(), ids=list(REFUSED))
def test_what_cannot_be_shown(tmp_path, data, kind, message):
    """Each with a reason of its own, in our words."""
    refused = probe_here(file_of(tmp_path, data))
    assert isinstance(refused, JobFailed)
    assert kind == refused.kind
    assert re.search(message, refused.message)


def test_a_header_that_understates_the_size(tmp_path):
    """A clip of 36 megapixels a frame that calls itself 64x48 is found out by its first frame."""
    clip = made_clip("8192x4352.webm").read_bytes()
    for name, true, false in ((b"\xb0\x82", 8192, 64), (b"\xba\x82", 4352, 48)):
        assert name + struct.pack(">H", true) in clip
        clip = clip.replace(name + struct.pack(">H", true), name + struct.pack(">H", false))
    refused = probe_here(file_of(tmp_path, clip))
    assert refused.message == "the clip is 8192x4352; frames of 9437184 pixels are taken"


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max_frames": 249}, "the clip has 250 frames; 249 are taken"),
        ({"max_seconds": 9.5}, "the clip lasts 10 s; 9.5 s are taken"),
        ({"max_fps": 24}, "the clip has 25 frames a second; 24 are taken"),
    ],
)
def test_beyond_a_limit(limits, message):
    """Refused with the value and the limit; exactly at it, taken."""
    assert probe_here(real_clip("bikes.mp4"), **limits).message == message
    assert isinstance(
        probe_here(real_clip("bikes.mp4"), max_frames=250, max_seconds=10.0, max_fps=25),
        VideoProbed,
    )


@pytest.mark.parametrize(("end", "stated"), [(0.0, 0.0), (float("nan"), float("nan"))])
def test_frames_without_a_time(monkeypatch, end, stated):
    """No rate, no seconds to choose from: refused."""

    class Timeless:
        def __len__(self) -> int:
            return 5

        def get_avg_fps(self) -> float:
            return stated

        def get_frame_timestamp(self, _: list[int]) -> list[list[float]]:
            return [[0.0, end]]

    monkeypatch.setattr(clip_module.decord, "VideoReader", lambda *_, **__: Timeless())
    refused = probe_here(made_clip("h264.mov"))
    assert refused.message == "the clip does not say how long its frames are shown"


def test_frames_shown_for_no_time(tmp_path):
    """A clip whose times are all zero is refused or read at a rate that is one."""
    probed = probe_here(file_of(tmp_path, without_time(made_clip("h264.mov").read_bytes())))
    assert isinstance(probed, JobFailed) or 0 < probed.fps <= 1000


# The processes


@pytest.fixture
async def workers():
    pool = MediaWorkers(num_workers=1, settings=CLIP_SETTINGS)
    await pool.start()
    seen = set(pool.process_ids)
    yield pool
    seen |= set(pool.process_ids)
    await pool.close()
    assert not any(map(exists, seen))


async def render(workers: MediaWorkers, path: Path, output_dir: Path, **wish) -> int:
    info = await workers.probe_video(path)
    rendered = await workers.render_video(
        path,
        frames=sample_frames(info, **wish),
        width=info.width,
        height=info.height,
        tile_size=56,
        output_dir=output_dir,
    )
    rendered.path.unlink()
    return rendered.width * rendered.height


async def test_a_clip(tmp_path, workers):
    """Probed and rendered by a worker under all its limits."""
    path = real_clip("bikes.mp4")
    assert await workers.probe_video(path) == VideoInfo(
        width=640, height=272, num_frames=250, fps=25.0, format="MP4", codec="H.264"
    )
    assert await render(workers, path, tmp_path) == 5 * 56 * 56
    assert await render(workers, path, tmp_path, max_frames=3) == 2 * 56 * 56


async def test_faults_by_kind(tmp_path, workers):
    """A codec is told apart, and the worker goes on after every refusal."""
    before = workers.process_ids
    with pytest.raises(MediaTypeUnsupported, match="codec AV1") as caught:
        await workers.probe_video(made_clip("av1.mp4"))
    assert caught.value.metadata == {"codec": "AV1"}
    with pytest.raises(MediaTypeUnsupported, match="not an MP4"):
        await workers.probe_video(file_of(tmp_path, b"hello"))
    with pytest.raises(MediaUndecodable, match="cut off"):
        await workers.probe_video(
            file_of(tmp_path, real_clip("carphone_pristine.mp4").read_bytes()[:99_999])
        )
    assert before == workers.process_ids
    assert not list(tmp_path.glob("*.rgb"))


async def test_a_clip_that_hangs(tmp_path):
    """A header is given less time than frames; its worker is replaced."""
    settings = MediaSettings(kind="clips", probe_seconds=0.2, job_seconds=30.0)
    pool = MediaWorkers(num_workers=1, settings=settings)
    await pool.start()
    (first,) = pool.process_ids
    with pytest.raises(MediaUndecodable, match=r"the clip took longer than 0\.2 s"):
        await pool.probe_video(hanging(tmp_path))
    assert (await pool.probe_video(made_clip("vp9.webm"))).codec == "VP9"
    assert not exists(first)
    await pool.close()


async def test_flipped_bytes(tmp_path, workers):
    """200 bytes of a real clip changed: rendered, wrongly perhaps, or refused; always answered."""
    dice = random.Random(7)
    original = real_clip("carphone_distorted.mp4").read_bytes()
    path = tmp_path / "flipped.mp4"
    for _ in range(6):
        clip = bytearray(original)
        for _ in range(200):
            clip[dice.randrange(12, len(clip))] ^= 1 << dice.randrange(8)
        path.write_bytes(clip)
        await attempt(workers, path, tmp_path)
    assert (await workers.probe_video(made_clip("vp9.webm"))).num_frames == 30


async def test_mutated_clips(tmp_path, workers):
    """Whatever is done to a clip's bytes, it is rendered or refused, and the next one served."""
    dice = random.Random(20)
    names = ("h264.mov", "vp9.webm", "vp8.webm", "h265.mp4", "mpeg4.mp4", "fragmented.mp4")
    path = tmp_path / "mutant"
    for _ in range(60):
        clip = bytearray(made_clip(dice.choice(names)).read_bytes())
        for _ in range(dice.randint(1, 12)):
            clip[dice.randrange(len(clip))] = dice.randrange(256)
        if dice.random() < 0.3:
            del clip[dice.randrange(len(clip)) :]
        path.write_bytes(clip)
        await attempt(workers, path, tmp_path)
    assert (await workers.probe_video(made_clip("h264.mov"))).num_frames == 30
    assert not list(tmp_path.glob("*.rgb"))


async def attempt(workers: MediaWorkers, path: Path, output_dir: Path) -> None:
    try:
        await render(workers, path, output_dir)
    except RuntimeFault as fault:
        assert isinstance(fault, MediaUndecodable | MediaTypeUnsupported)


async def test_what_a_clip_worker_is_denied(workers):
    """It runs under a filter of system calls, in an environment with nothing of ours in it."""
    (process_id,) = workers.process_ids
    status = Path(f"/proc/{process_id}/status").read_text()
    variables = Path(f"/proc/{process_id}/environ").read_bytes().split(b"\0")
    assert "Seccomp:\t2" in status
    assert "NoNewPrivs:\t1" in status
    assert {name.split(b"=")[0] for name in variables if name} == {
        *(b"PYTHONPATH", b"LC_ALL", b"PATH", b"OPENBLAS_NUM_THREADS")
    }
    assert b"PATH=" in variables
