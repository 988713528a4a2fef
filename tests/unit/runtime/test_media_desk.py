"""The desk: one look at each file, and workers for clips only once there is a clip."""

import asyncio
import io

import pytest
from PIL import Image

from ixc_runtime.errors import EngineFault, MediaTypeUnsupported, MediaUndecodable, ServerDraining
from ixc_runtime.media import desk as desk_module
from ixc_runtime.media.desk import MediaDesk, MediaLimits
from ixc_runtime.media.pool import MediaWorkers
from ixc_runtime.request import (
    Conversation,
    ImageSource,
    Message,
    Role,
    VideoPart,
    VideoSource,
)
from tests.fakes.clips import made_clip


@pytest.fixture
def starts(monkeypatch):
    """The kinds of workers started, in order; `fail` makes the next start fail."""

    class Counted(MediaWorkers):
        kinds: list[str] = []  # noqa: RUF012 - one list for all is meant
        fail = False
        first_clip = asyncio.Event()

        async def start(self) -> None:
            self.kinds.append(self._settings.kind)
            if self._settings.kind == "clips":
                self.first_clip.set()
            if Counted.fail:
                Counted.fail = False
                raise EngineFault("the media workers do not start")
            await super().start()

    monkeypatch.setattr(desk_module, "MediaWorkers", Counted)
    return Counted


def clip(name: str) -> VideoSource:
    return VideoSource(digest=name, path=made_clip(name))


async def test_the_first_clip_starts_the_workers_for_clips(starts):
    """Once, however many come together; without a clip there are none."""
    desk = await MediaDesk.open(num_workers=1)
    assert starts.kinds == ["pictures"]
    infos = await asyncio.gather(*map(desk.inspect, (clip("vp9.webm"), clip("h264.mov"))))
    assert [info.codec for info in infos] == ["VP9", "H.264"]
    assert starts.kinds == ["pictures", "clips"]
    await desk.close()


async def test_workers_that_do_not_start_are_tried_again(starts):
    """One failure is one request's, not the desk's for ever."""
    desk = await MediaDesk.open(num_workers=1)
    starts.fail = True
    with pytest.raises(EngineFault, match="do not start"):
        await desk.inspect(clip("vp9.webm"))
    assert (await desk.inspect(clip("vp9.webm"))).codec == "VP9"
    await desk.close()


async def test_a_clip_in_two_turns(starts, tmp_path):
    """Looked at once: its file may even be gone by the second turn."""
    path = tmp_path / "clip"
    path.write_bytes(made_clip("vp9.webm").read_bytes())
    part = VideoPart(source=VideoSource(digest="x", path=path))
    conversation = Conversation(messages=(Message(role=Role.USER, parts=(part, part)),))
    desk = await MediaDesk.open(num_workers=1)
    first = await desk.measure(conversation)
    path.unlink()
    assert await desk.measure(conversation) == first
    assert list(first) == ["x"]
    await desk.close()


async def test_closing_while_workers_for_clips_start(starts):
    """Nothing is left behind, and whoever waited, or comes later, is told."""
    desk = await MediaDesk.open(num_workers=1)
    waiting = asyncio.create_task(desk.inspect(clip("vp9.webm")))
    await starts.first_clip.wait()
    await desk.close()
    with pytest.raises(ServerDraining):
        await waiting
    with pytest.raises(ServerDraining):
        await desk.inspect(clip("vp9.webm"))


async def test_what_is_wrong_with_a_file_names_it(tmp_path):
    """Its digest stands in the fault, whether it is measured, examined or rendered."""
    broken = tmp_path / "broken"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    desk = await MediaDesk.open(num_workers=1)
    for source, fault in (
        (ImageSource(digest="d1", path=broken), MediaUndecodable),
        (VideoSource(digest="d2", path=broken), MediaTypeUnsupported),
        (VideoSource(digest="d3", path=made_clip("av1.mp4")), MediaTypeUnsupported),
    ):
        with pytest.raises(fault) as caught:
            await desk.inspect(source)
        assert caught.value.metadata["media"] == source.digest
    assert caught.value.metadata["codec"] == "AV1"
    await desk.close()


async def test_a_picture_is_examined_as_a_whole(tmp_path):
    """A good header does not make a good picture; nothing is left of the trial."""
    buffer = io.BytesIO()
    Image.effect_noise((300, 200), 50).save(buffer, "PNG")
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.write_bytes(buffer.getvalue())
    cut.write_bytes(buffer.getvalue()[:5000])
    desk = await MediaDesk.open(num_workers=1)
    good = ImageSource(digest="good", path=whole)
    assert await desk.examine(good) == await desk.inspect(good)
    bad = ImageSource(digest="bad", path=cut)
    assert (await desk.inspect(bad)).width == 300
    with pytest.raises(MediaUndecodable) as caught:
        await desk.examine(bad)
    assert caught.value.metadata["media"] == "bad"
    assert list(desk._folder.path.iterdir()) == []
    await desk.close()


async def test_limits_reach_the_workers(tmp_path):
    """A picture or a clip beyond them is refused with the number."""
    picture = tmp_path / "picture"
    Image.new("RGB", (40, 30)).save(picture, "PNG")
    limits = MediaLimits(max_image_pixels=1199, max_video_pixels=3000)
    desk = await MediaDesk.open(num_workers=1, limits=limits)
    with pytest.raises(MediaUndecodable, match="1199"):
        await desk.inspect(ImageSource(digest="p", path=picture))
    with pytest.raises(MediaUndecodable, match="3000"):
        await desk.inspect(clip("vp9.webm"))
    await desk.close()
    desk = await MediaDesk.open(num_workers=1, limits=MediaLimits(max_video_seconds=2.0))
    with pytest.raises(MediaUndecodable, match="2 s"):
        await desk.inspect(clip("vp9.webm"))
    await desk.close()
