"""The desk: one look at each file, and workers for clips only once there is a clip."""

import asyncio

import pytest

from ixc_runtime.errors import EngineFault, ServerDraining
from ixc_runtime.media import desk as desk_module
from ixc_runtime.media.desk import MediaDesk
from ixc_runtime.media.pool import MediaWorkers
from ixc_runtime.request import Conversation, Message, Role, VideoPart, VideoSource
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
