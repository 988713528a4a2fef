"""What a server's processes do beside answering: which sockets, which files, and no pickles."""

import io
from pathlib import Path
from typing import Any

import grpc
import pytest
from PIL import Image

from ixc.v1 import media_pb2
from ixc.v1.chat_service_pb2 import ChatRequest
from ixc.v1.chat_service_pb2_grpc import ChatServiceStub
from ixc.v1.content_pb2 import Content, Part, VideoPart
from ixc.v1.generation_service_pb2_grpc import GenerationServiceStub
from ixc.v1.media_service_pb2 import (
    DeleteMediaRequest,
    GetUploadRequest,
    ListMediaRequest,
)
from ixc.v1.media_service_pb2_grpc import MediaServiceStub
from ixc.v1.sampling_pb2 import SamplingParams
from ixc.v1.session_service_pb2 import CreateSessionRequest, DeleteSessionRequest
from ixc.v1.session_service_pb2_grpc import SessionServiceStub
from ixc.v1.token_service_pb2 import CountTokensRequest
from ixc.v1.token_service_pb2_grpc import TokenServiceStub
from tests.fakes import audit_recorder
from tests.fakes.clips import made_clip
from tests.fakes.running_server import chat_request, events_of, generate_request, kinds, text_prompt
from tests.fakes.server_process import (
    ServerProcess,
    command_line,
    descendants,
    running_process,
)
from tests.fakes.uploading import chunk_of, media_name, pieces_of, sha256, spec_of, upload

SHARED_MEMORY = "/dev/shm/ixc-pixels-"
SHORT = SamplingParams(max_output_tokens=4, ignore_eos=True)


class Record:
    """What the processes wrote down: (role, event, arguments)."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "audit.tsv"
        self.folder = folder / "audit"
        self.folder.mkdir()
        source = Path(audit_recorder.__file__).read_text(encoding="utf-8")
        (self.folder / "sitecustomize.py").write_text(source.replace("@LOG@", str(self.path), 1))

    @property
    def events(self) -> list[tuple[str, str, tuple[str, ...]]]:
        lines = self.path.read_text(encoding="utf-8").splitlines()
        rows = (line.split("\t") for line in lines)
        return [(role, event, tuple(arguments)) for _, role, event, *arguments in rows]


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Record:
    record = Record(tmp_path)
    monkeypatch.syspath_prepend(record.folder)
    return record


async def test_a_run_of_everything(tmp_path: Path, tiny_model: Path, record: Record) -> None:
    """No socket but ours, no file written outside our roots, nothing unpickled, nothing spawned
    but our own processes.
    """
    async with (
        running_process(tmp_path, tiny_model, "--kv-bytes=4000000") as served,
        served.channel() as channel,
    ):
        await representative(channel)
        listening, connected = internet_sockets(served)
        assert (listening, connected) == ([], [])  # it listens on a Unix socket alone
        children = list(map(command_line, descendants(served.pid)))
        assert children and all(" -m ixc_runtime." in each for each in children)
        assert await served.stop() == 0
    roots = (str(tmp_path / "data"), SHARED_MEMORY)
    told = record.events
    assert {role for role, _, _ in told} >= {"front end", "engine", "media"}
    foreign = [each for each in told if not is_ours(*each[1:], roots)]
    assert foreign == [], "\n".join(map(str, foreign))


async def representative(channel: grpc.aio.Channel) -> None:
    """Text, pictures and a clip inline and uploaded, broken ones, a session from its beginning to
    its end.
    """
    generations: Any = GenerationServiceStub(channel)
    sessions: Any = SessionServiceStub(channel)
    chats: Any = ChatServiceStub(channel)
    tokens: Any = TokenServiceStub(channel)
    await events_of(generations.Generate(generate_request("Hello", sampling=SHORT)))
    await tokens.CountTokens(CountTokensRequest(prompt=text_prompt("Hello")))
    session = (await sessions.CreateSession(CreateSessionRequest())).session.name
    request = chat_request(session, "What is it?", image=picture(), sampling=SHORT)
    await events_of(chats.Chat(request))
    await events_of(chats.Chat(chat_request(session, "And now?", sampling=SHORT)))
    with pytest.raises(grpc.aio.AioRpcError):
        await events_of(chats.Chat(chat_request(session, "Broken", image=picture()[:60])))
    await with_uploads(channel, session)
    await sessions.DeleteSession(DeleteSessionRequest(name=session))


async def with_uploads(channel: grpc.aio.Channel, session: str) -> None:
    """A transfer that is broken off, looked up and finished; what it is used for; its end."""
    chats: Any = ChatServiceStub(channel)
    media: Any = MediaServiceStub(channel)
    clip = made_clip("h264.mkv").read_bytes()
    for data in (picture()[:60], made_clip("av1.mp4").read_bytes()):
        assert (await upload(media, data)).media.state == media_pb2.MEDIA_STATE_FAILED
    await media.UploadMedia(iter([spec_of(clip), chunk_of(clip[:1000])]))
    upload_id = sha256(clip)
    committed = (await media.GetUpload(GetUploadRequest(upload_id=upload_id))).upload.committed_size
    await media.UploadMedia(iter([spec_of(clip), *pieces_of(clip, 700, offset=committed)]))
    part = Part(video=VideoPart(media=media_name(clip), max_frames=2))
    request = ChatRequest(
        session=session, message=Content(parts=[part, Part(text="What happens?")]), sampling=SHORT
    )
    assert kinds(await events_of(chats.Chat(request)))[-1] == "completed"
    await media.ListMedia(ListMediaRequest())
    await media.DeleteMedia(DeleteMediaRequest(name=media_name(picture()[:60])))


def picture() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (80, 50), "orange").save(buffer, "PNG")
    return buffer.getvalue()


def is_ours(event: str, arguments: tuple[str, ...], roots: tuple[str, ...]) -> bool:
    paths = [text.strip("b'\"") for text in arguments]
    match event:
        case "open" | "os.remove" | "os.rename" | "os.link" | "os.mkdir" | "os.rmdir":
            return all(path.startswith(roots) or path == "/dev/null" for path in paths if path)
        case "shutil.rmtree":
            return paths[0].startswith(roots)
        case "os.chmod" | "sqlite3.connect":
            return paths[0].startswith(roots) or paths[0].endswith("/ixc.sock")
        case "ctypes.dlopen":
            return True  # libraries of our dependencies; nothing a request can name
        case "subprocess.Popen":
            # Our own processes, as the test says. Importing torch where NVIDIA's bindings are
            # installed makes these ask the linker's cache for libraries.
            return "'-m', 'ixc_runtime." in arguments[1] or "ldconfig', '-p'" in arguments[1]
    return False


def internet_sockets(served: ServerProcess) -> tuple[list[str], list[str]]:
    """Local addresses of the TCP and UDP sockets of all its processes: listening, and others."""
    inodes = set()
    for pid in (served.pid, *descendants(served.pid)):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            target = str(descriptor.readlink())
            if target.startswith("socket:["):
                inodes.add(target.removeprefix("socket:[").removesuffix("]"))
    listening, others = [], []
    for table in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/{served.pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[9] in inodes:
                (listening if fields[3] == "0A" else others).append(fields[1])
    return listening, others
