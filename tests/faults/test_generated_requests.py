"""Requests that nobody would write: each is answered or refused as documented, and soon."""

import asyncio
import os
import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pool
from google.protobuf.message import Message

from ixc.v1.chat_service_pb2 import ChatRequest
from ixc.v1.generation_service_pb2 import GenerateRequest, WatchGenerationRequest
from ixc.v1.session_service_pb2 import CreateSessionRequest
from ixc.v1.session_service_pb2_grpc import SessionServiceStub
from ixc.v1.token_service_pb2 import CountTokensRequest
from ixc_service.server import SERVICES
from tests.contract import described
from tests.contract.test_contract_errors import stated
from tests.fakes.request_mutations import Method, RequestMaker, methods_of
from tests.fakes.running_server import chat_request, error_info, generate_request, text_prompt
from tests.fakes.server_process import ServerProcess, running_process

HANG_SECONDS = 5.0
AT_ONCE = 4
ROUND = 50  # requests, after which there is a new session to name
# Short answers and short waits: what is tested is the answer's kind, not its length.
FLAGS = (
    "--max-output-tokens=16",
    "--max-generation-timeout-seconds=2",
    "--max-queue-wait-seconds=2",
    "--max-resume-grace-seconds=2",
    "--default-resume-grace-seconds=1",
    "--kv-bytes=8000000",
)
# What the gRPC library says by itself, to a message or to metadata that is too large.
BY_THE_LIBRARY = {grpc.StatusCode.RESOURCE_EXHAUSTED}


def our_methods() -> list[Method]:
    pool = descriptor_pool.Default()
    services = [name for name in SERVICES if name.startswith("ixc.v1.")]
    return [each for name in services for each in methods_of(pool.FindServiceByName(name))]


def documented() -> dict[str, set[tuple[str, str]]]:
    """Each RPC's (code, reason) pairs, as its comment states them."""
    return {
        method.name: {(code, reason) for code, reasons in stated(method) for reason in reasons}
        for method in described.methods()
    }


@dataclass
class Walker:
    channel: grpc.aio.Channel
    rng: random.Random
    session: str = ""
    allowed: dict[str, set[tuple[str, str]]] = field(default_factory=documented)
    outcomes: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    async def round(self, methods: list[Method], count: int) -> None:
        sessions: Any = SessionServiceStub(self.channel)
        self.session = (await sessions.CreateSession(CreateSessionRequest())).session.name
        maker = RequestMaker(self.rng, (self.session, f"{self.session}/turns/1"))
        calls = []
        for _ in range(count):
            method = self.rng.choice(methods)
            calls.append((method, [maker.message(self.example(method)) for _ in range(2)]))
        for start in range(0, count, AT_ONCE):
            await asyncio.gather(*(self.call(*each) for each in calls[start : start + AT_ONCE]))

    def example(self, method: Method) -> Message:
        """A request that would work, to be spoilt."""
        request = method.request()
        match request:
            case GenerateRequest():
                return generate_request("Say something.")
            case ChatRequest():
                return chat_request(self.session, "Say something.")
            case CountTokensRequest():
                return CountTokensRequest(prompt=text_prompt("Count me."))
            case WatchGenerationRequest():
                return WatchGenerationRequest(name="generations/0000000000")
        if "name" in request.DESCRIPTOR.fields_by_name:
            setattr(request, "name", self.session)  # noqa: B010 - of several message types
        return request

    async def call(self, method: Method, messages: list[bytes]) -> None:
        """Sends bytes as they are; notes every outcome that the contract does not know."""
        try:
            async with asyncio.timeout(HANG_SECONDS):
                await self._call(method, messages)
            outcome = "OK"
        except TimeoutError:
            outcome = "hang"
            self.wrong.append(f"{method.name} took over {HANG_SECONDS} s: {messages[0]!r:.500}")
        except grpc.aio.AioRpcError as error:
            outcome = self._judge(method, error, messages)
        self.outcomes[outcome] += 1

    async def _call(self, method: Method, messages: list[bytes]) -> None:
        async def several() -> AsyncIterator[bytes]:
            for message in messages:
                yield message

        if method.takes_stream:
            make = self.channel.stream_stream if method.gives_stream else self.channel.stream_unary
            request: Any = several()
        else:
            make = self.channel.unary_stream if method.gives_stream else self.channel.unary_unary
            request = messages[0]
        call: Any = make(method.path)(request)
        try:
            if not method.gives_stream:
                await call
                return
            while await call.read() is not grpc.aio.EOF:
                pass
        finally:
            call.cancel()

    def _judge(self, method: Method, error: grpc.aio.AioRpcError, messages: list[bytes]) -> str:
        code = error.code()
        details = dict(error.trailing_metadata() or ())
        if "grpc-status-details-bin" not in details and code in BY_THE_LIBRARY:
            return f"{code.name} by the library"
        try:
            reason = error_info(error).reason
        except AssertionError:
            reason = "(none)"
        is_known = (code.name, reason) in self.allowed[method.name]
        if not is_known or code is grpc.StatusCode.INTERNAL:
            said = f"{code.name}/{reason} {error.details()!r}"
            self.wrong.append(f"{method.name}: {said} to {messages[0]!r:.500}")
        return f"{code.name}/{reason}"


@pytest.mark.parametrize("count", [1_500, pytest.param(10_000, marks=pytest.mark.faults)])
async def test_every_request_is_answered_or_refused_as_documented(
    tmp_path: Path, tiny_model: Path, count: int
) -> None:
    """No code outside the RPC's own list, no INTERNAL, no hang; engine and front end live on."""
    async with (
        running_process(tmp_path, tiny_model, *FLAGS) as served,
        served.channel() as channel,
    ):
        processes = (served.pid, served.engine_pid)
        walker = Walker(channel, random.Random(int(os.environ.get("FAULTS_SEED", "5"))))
        methods = our_methods()
        for _ in range(count // ROUND):
            await walker.round(methods, ROUND)
        for outcome, number in walker.outcomes.most_common():
            print(f"{number:6} {outcome}")
        assert walker.wrong == [], "\n".join(walker.wrong)
        assert (served.pid, served.engine_pid) == processes
        await still_answers(served, channel)
        assert not [line for line in served.log if "incident" in line]


async def still_answers(served: ServerProcess, channel: grpc.aio.Channel) -> None:
    await served.ready(5.0)
    async with asyncio.timeout(HANG_SECONDS):
        call: Any = channel.unary_stream("/ixc.v1.GenerationService/Generate")(
            generate_request("Still there?").SerializeToString()
        )
        while await call.read() is not grpc.aio.EOF:
            pass
