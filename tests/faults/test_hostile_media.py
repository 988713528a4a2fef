"""Pillow's own test images, the broken and the malicious among them, sent to a real server.

They come from Pillow's source package, fetched at test time: not ours to keep. `make hostile-media`
runs this; nothing else does, for it needs a package index.
"""

import asyncio
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import grpc
import pytest

from ixc.v1 import media_pb2
from ixc.v1.chat_service_pb2 import ChatRequest
from ixc.v1.chat_service_pb2_grpc import ChatServiceStub
from ixc.v1.content_pb2 import Content, ContentList, ImagePart, Part, Prompt, Role, VideoPart
from ixc.v1.media_service_pb2 import UploadMediaResponse
from ixc.v1.media_service_pb2_grpc import MediaServiceStub
from ixc.v1.sampling_pb2 import SamplingParams
from ixc.v1.session_service_pb2 import CreateSessionRequest, DeleteSessionRequest
from ixc.v1.session_service_pb2_grpc import SessionServiceStub
from ixc.v1.token_service_pb2 import CountTokensRequest
from ixc.v1.token_service_pb2_grpc import TokenServiceStub
from ixc_service.limits import Limits
from tests.fakes.running_server import events_of, kinds
from tests.fakes.server_process import (
    ServerProcess,
    command_line,
    descendants,
    is_alive,
    running_process,
    write_model,
)
from tests.fakes.uploading import media_name, upload
from tests.faults.documented import judged

ANSWER_SECONDS = 6.0
LIMITS = Limits()
SHORT = SamplingParams(max_output_tokens=2, ignore_eos=True)


@pytest.fixture(scope="module")
def pillows_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source package of the very Pillow that decodes here."""
    folder = tmp_path_factory.mktemp("pillow")
    wanted = f"pillow=={version('pillow')}"
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
            *("--no-deps", "--no-binary", "pillow", "--dest", str(folder), wanted),
        ],
        check=True,
    )
    (package,) = folder.glob("*.tar.gz")
    return package


def images_of(package: Path) -> Iterator[tuple[str, bytes]]:
    """Every file of Tests/images, read and never unpacked."""
    with tarfile.open(package) as archive:
        for member in archive:
            _, _, name = member.name.partition("/Tests/images/")
            if name and member.isfile() and (file := archive.extractfile(member)) is not None:
                yield name, file.read()


@dataclass
class Sender:
    """Sends files and keeps the books: what became of each, and which outcome no user may meet."""

    channel: grpc.aio.Channel
    tally: Counter[tuple[str, str]] = field(default_factory=Counter)
    slowest: list[tuple[float, str]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.chats: Any = ChatServiceStub(self.channel)
        self.media: Any = MediaServiceStub(self.channel)
        self.sessions: Any = SessionServiceStub(self.channel)
        self.tokens: Any = TokenServiceStub(self.channel)

    async def send(self, name: str, data: bytes) -> None:
        """Uploaded; counted by its name; and talked about inline, so that it is decoded again."""
        uploaded = await self._ask("MediaService.UploadMedia", name, lambda: self._upload(data))
        is_kept = isinstance(uploaded, UploadMediaResponse)
        is_clip = is_kept and uploaded.media.mime_type.startswith("video/")
        named, inline = part_of(data, by_name=True, is_clip=is_clip), None
        if len(data) <= LIMITS.max_inline_image_bytes:
            inline = part_of(data, by_name=False, is_clip=is_clip)
        if (counted := named if is_kept else inline) is not None:
            await self._ask("TokenService.CountTokens", name, lambda: self._count(counted))
        talked = await self._ask("ChatService.Chat", name, lambda: self._chat(inline or named))
        is_active = is_kept and uploaded.media.state == media_pb2.MEDIA_STATE_ACTIVE
        if is_active != (talked is not None):
            self.wrong.append(f"{name}: the upload says {is_active=}, the chat otherwise")

    async def _ask(
        self, method: str, name: str, call: Callable[[], Awaitable[tuple[str, Any]]]
    ) -> Any:
        """What the call gives; None if it was refused. Whatever it is goes into the books."""
        began = time.perf_counter()
        given = None
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                outcome, given = await call()
        except TimeoutError:
            outcome = f"none within {ANSWER_SECONDS:g} s"
            self.wrong.append(f"{name}: {method} gave no answer")
        except grpc.aio.AioRpcError as error:
            outcome, may_be = judged(method, error)
            if not may_be:
                self.wrong.append(f"{name}: {method} ended {outcome} {error.details()!r}")
        self.tally[method, outcome] += 1
        self.slowest.append((time.perf_counter() - began, f"{method} {name}"))
        return given

    async def _upload(self, data: bytes) -> tuple[str, UploadMediaResponse]:
        answer = await upload(self.media, data)
        return media_pb2.MediaState.Name(answer.media.state), answer

    async def _count(self, part: Part) -> tuple[str, int]:
        content = Content(role=Role.ROLE_USER, parts=[part, Part(text="What is it?")])
        prompt = Prompt(contents=ContentList(contents=[content]))
        answer = await self.tokens.CountTokens(CountTokensRequest(prompt=prompt))
        return "OK", answer.total_tokens

    async def _chat(self, part: Part) -> tuple[str, str]:
        session = (await self.sessions.CreateSession(CreateSessionRequest())).session.name
        try:
            message = Content(role=Role.ROLE_USER, parts=[part, Part(text="What is it?")])
            request = ChatRequest(session=session, message=message, sampling=SHORT)
            events = await events_of(self.chats.Chat(request))
            return kinds(events)[-1], session
        finally:
            await self.sessions.DeleteSession(DeleteSessionRequest(name=session))


def part_of(data: bytes, *, by_name: bool, is_clip: bool) -> Part:
    source: dict[str, Any] = {"media": media_name(data)} if by_name else {"inline_data": data}
    return Part(video=VideoPart(**source)) if is_clip else Part(image=ImagePart(**source))


@pytest.mark.download
@pytest.mark.timeout(1800)
async def test_pillows_test_images(tmp_path: Path, pillows_images: Path) -> None:
    """Each is answered or refused as documented within 6 s; the server lives, and nothing stays
    behind: no process that nobody waited for, no pixels in shared memory.
    """
    model = write_model(tmp_path / "model", max_positions=8192)
    async with (
        running_process(tmp_path, model, "--kv-bytes=16000000") as served,
        served.channel() as channel,
    ):
        processes = (served.pid, served.engine_pid)
        sender = Sender(channel)
        began, num_files = time.perf_counter(), 0
        for name, data in images_of(pillows_images):
            await sender.send(name, data)
            num_files += 1
            assert len(sender.wrong) < 10, "\n".join(sender.wrong)
        seconds = time.perf_counter() - began
        for (method, outcome), number in sorted(sender.tally.items()):
            print(f"{number:6} {method:24} {outcome}")
        for took, what in sorted(sender.slowest, reverse=True)[:5]:
            print(f"{took:6.2f} s {what}")
        print(f"{num_files} files, {len(sender.slowest)} calls in {seconds:.0f} s")
        assert num_files > 500  # it is the package that we think it is
        assert sender.wrong == [], "\n".join(sender.wrong)
        assert (served.pid, served.engine_pid) == processes
        assert not [line for line in served.log if "incident" in line]
        await only_live_workers(served)
        (pixels,) = pixels_folders(served)
        assert list(pixels.iterdir()) == []
        children = descendants(served.pid)
        assert await served.stop() == 0
    assert not pixels.exists()
    assert not any(map(is_alive, children))


async def only_live_workers(served: ServerProcess) -> None:
    """One for pictures and, if a clip came, one for clips; a replaced one is soon waited for."""
    async with asyncio.timeout(10):
        while True:
            children = descendants(served.pid)
            workers = [pid for pid in children if "media.worker" in command_line(pid)]
            if all(map(is_alive, children)) and 1 <= len(workers) <= 2:
                return
            await asyncio.sleep(0.05)


def pixels_folders(served: ServerProcess) -> set[Path]:
    """Those that the front end holds the lock of."""
    links = (each.readlink() for each in Path(f"/proc/{served.pid}/fd").iterdir())
    return {link for link in links if link.name.startswith("ixc-pixels-")}
