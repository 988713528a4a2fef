"""The server as a process: flags to exit codes, a real engine behind it, SIGTERM to the end."""

import asyncio
import io
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest
from PIL import Image

from ixc.v1.chat_service_pb2_grpc import ChatServiceStub
from ixc.v1.model_service_pb2 import GetServerInfoRequest
from ixc.v1.model_service_pb2_grpc import ModelServiceStub
from ixc.v1.sampling_pb2 import SamplingParams
from ixc.v1.session_service_pb2 import CreateSessionRequest
from ixc.v1.session_service_pb2_grpc import SessionServiceStub
from tests.fakes.running_server import chat_request, events_of, kinds
from tests.fakes.tiny_checkpoint import write_tiny_checkpoint
from tests.fakes.tiny_tokenizer import write_tokenizer_model


async def started(*flags: str, environ: Mapping[str, str] | None = None) -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "ixc_service",
        *flags,
        stderr=PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **(environ or {})},
    )


async def outcome(process: Process) -> tuple[int, str]:
    async with asyncio.timeout(30):
        _, said = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        ((), 2, "name the folder of a checkpoint"),
        (("--no-such-flag",), 2, "--no-such-flag"),
        (("--max-context", "many"), 2, "--max-context"),
        (("--listen", "0.0.0.0:1", "--model", "/x"), 2, "plaintext"),
        (("--model", "/nowhere/at/all"), 1, "no such folder: /nowhere/at/all"),
    ],
)
async def test_a_server_that_cannot_start(flags: tuple[str, ...], code: int, words: str) -> None:
    """A clear line on standard error, and a code that is not 0."""
    returned, said = await outcome(await started(*flags))
    assert returned == code
    assert words in said
    assert "Traceback" not in said


async def test_a_port_in_use_is_said(tmp_path: Path) -> None:
    """No second server beside the first on one port."""
    listener = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    async with listener:
        port = listener.sockets[0].getsockname()[1]
        write_model(tmp_path / "model")
        returned, said = await outcome(
            await started(
                f"--model={tmp_path}/model",
                f"--listen=127.0.0.1:{port}",
                f"--data-dir={tmp_path}/data",
                "--kv-bytes=4000000",
            )
        )
    assert returned == 2
    assert "in use" in said


def write_model(folder: Path) -> None:
    write_tiny_checkpoint(folder, vocab=1000, max_positions=1024)
    write_tokenizer_model(folder, vocab_size=1000)


async def test_two_turns_about_a_picture_and_a_drain(tmp_path: Path) -> None:
    """The plan is printed, turns are answered and cached, SIGTERM ends the process with 0."""
    write_model(tmp_path / "model")
    socket = tmp_path / "ixc.sock"
    process = await started(
        "--model",
        str(tmp_path / "model"),
        environ={
            "IXC_LISTEN": f"unix:{socket}",
            "IXC_DATA_DIR": str(tmp_path / "data"),
            "IXC_KV_BYTES": "4000000",
            "IXC_DRAIN_NOTICE_SECONDS": "0",
        },
    )
    assert process.stderr is not None
    said = []
    while not said or " ready addresses=" not in said[-1]:
        line = (await process.stderr.readline()).decode()
        assert line, "".join(said)
        said.append(line)
    assert any("pages of" in line for line in said)
    assert socket.stat().st_mode & 0o777 == 0o600
    async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
        models: Any = ModelServiceStub(channel)
        server = (await models.GetServerInfo(GetServerInfoRequest())).server
        assert server.plan.num_pages > 0
        assert server.plan.images_capacity > 0
        sessions: Any = SessionServiceStub(channel)
        session = (await sessions.CreateSession(CreateSessionRequest())).session.name
        chats: Any = ChatServiceStub(channel)
        eight = SamplingParams(max_output_tokens=8, ignore_eos=True)
        first = chat_request(session, "What is it?", image=picture(), sampling=eight)
        events = await events_of(chats.Chat(first))
        assert kinds(events)[-1] == "completed"
        used = events[-1].completed.usage
        assert (used.output_tokens, used.cached_tokens) == (8, 0)
        assert used.image_tokens > 0
        second = await events_of(chats.Chat(chat_request(session, "And?", sampling=eight)))
        processed = second[1].prompt_processed
        assert processed.cached_tokens > used.image_tokens
        assert processed.encoded_tiles == 0
        assert second[-1].completed.turn == f"{session}/turns/2"
    process.send_signal(signal.SIGTERM)
    returned, rest = await outcome(process)
    assert returned == 0, rest
    assert "stopped" in rest


async def test_a_private_server_leaves_nothing_behind(tmp_path: Path) -> None:
    """Whoever started it may be killed: it stops with their pipe, and its folder goes with it."""
    write_model(tmp_path / "model")
    own = tmp_path / "own"
    own.mkdir()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ixc_cli", "serve", str(tmp_path / "model")),
        *("--until-stdin-closes", f"--then-remove={own}", "--drain-notice-seconds=0"),
        *(f"--listen=unix:{own}/server.sock", f"--data-dir={own}/data", "--kv-bytes=4000000"),
        stdin=PIPE,
        stderr=PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdin is not None
    assert process.stderr is not None
    while " ready addresses=" not in (line := (await process.stderr.readline()).decode()):
        assert line
    assert (own / "data").exists()
    process.stdin.close()
    returned, said = await outcome(process)
    assert returned == 0, said
    assert not own.exists()


def picture() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), "orange").save(buffer, "PNG")
    return buffer.getvalue()
