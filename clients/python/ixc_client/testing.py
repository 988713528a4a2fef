"""A server for tests of programs that use `ixc_client`: real gRPC, scripted answers, no model.

    from ixc_client.testing import FakeServer

    def test_my_program_describes_a_picture() -> None:
        with FakeServer() as server, server.client() as ixc:
            server.reply("A ", "cat.")
            assert my_program(ixc) == "A cat."
            assert server.calls[-1].method == "Chat"

It keeps sessions and media, replays streams and cancels as the contract says. One token is one
character; a picture costs 100, a clip 300, and neither is ever opened. Without a script it answers
by repeating the question. Scripted answers that nobody asked for fail the test when the block is
left.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NoReturn, Self

import grpc
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from ixc_client._async_client import AsyncClient
from ixc_client._client import Client
from ixc_client._events import FinishReason
from ixc_client._fake_runs import Reply
from ixc_client._fake_service import FakeService
from ixc_client._fake_sessions import Refusal
from ixc_client._health import CHECK
from ixc_client._settings import Retries, Timeouts

__all__ = ["FakeServer", "RecordedCall", "Reply"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedCall:
    """A call as it arrived: the RPC's name, its message (of package ixc.v1) and its headers."""

    method: str
    request: Any
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Failure:
    method: str | None
    status: status_pb2.Status | None  # None: no answer at all


class FakeServer:
    """Listens from entering its `with` block to leaving it; by default on a free local port."""

    def __init__(self, listen: str = "127.0.0.1:0") -> None:
        self._listen = listen
        self.calls: list[RecordedCall] = []
        self.address = ""
        self._replies: list[Reply] = []
        self._failures: list[_Failure] = []
        self._lock = threading.Lock()
        self._service = FakeService(self._next_reply)
        self._pool = ThreadPoolExecutor(32, thread_name_prefix="ixc-fake")
        self._server = grpc.server(self._pool)
        self._server.add_generic_rpc_handlers(self._handlers())

    def __enter__(self) -> Self:
        port = self._server.add_insecure_port(self._listen)
        self.address = self._listen.replace(":0", f":{port}")
        self._server.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()
        self._server.stop(grace=0).wait()
        self._pool.shutdown()
        unused = len(self._replies) + len(self._failures)
        if kind is None and unused:
            raise AssertionError(f"{unused} scripted answers were never asked for: {self._replies}")

    def client(self, *, timeouts: Timeouts | None = None, retries: Retries | None = None) -> Client:
        return Client(self.address, timeouts=timeouts, retries=retries)

    def async_client(
        self, *, timeouts: Timeouts | None = None, retries: Retries | None = None
    ) -> AsyncClient:
        return AsyncClient(self.address, timeouts=timeouts, retries=retries)

    # --- the script

    def reply(
        self,
        *pieces: str,
        finish_reason: FinishReason = FinishReason.STOP,
        hold: bool = False,
        break_after: int | None = None,
        truncate_after: int | None = None,
        fail_with: str = "",
        code: str = "UNAVAILABLE",
    ) -> None:
        """Scripts the next answer; see `Reply`. `fail_with` is the reason of a `failed` event."""
        self._replies.append(
            Reply(
                pieces=pieces,
                finish_reason=finish_reason,
                hold=hold,
                break_after=break_after,
                truncate_after=truncate_after,
                failure=_status(code, fail_with, "scripted") if fail_with else None,
            )
        )

    def fail(
        self,
        code: str,
        reason: str = "",
        *,
        method: str | None = None,
        message: str = "scripted",
        metadata: Mapping[str, str] | None = None,
        retry_after: float | None = None,
        fields: Mapping[str, str] | None = None,
    ) -> None:
        """Scripts a refusal of the next call, or of the next call of `method` ("GetSession").

        `fields` maps paths of refused fields to what is wrong with them.
        """
        status = _status(
            code, reason, message, metadata=metadata, retry_after=retry_after, fields=fields
        )
        self._failures.append(_Failure(method=method, status=status))

    def hang(self, *, method: str | None = None) -> None:
        """Scripts silence: the next call gets no answer until its caller gives up."""
        self._failures.append(_Failure(method=method, status=None))

    def cut_upload(self, *, after: int) -> None:
        """Scripts a lost connection, once, when an upload has brought so many bytes.

        The client goes on by itself; this is for programs that show or count how far it is.
        """
        self._service.media.cut_upload(after)

    def keep_processing(self, looks: int) -> None:
        """What is uploaded from now on is ready only when it has been looked at so often."""
        self._service.media.keep_processing(looks)

    def restart(self) -> None:
        """As if it had been killed and started again: sessions and media are still there,
        generations are not, and whoever waits for the rest of an answer loses the connection.
        """
        self._service.generations.restart()

    def release(self) -> None:
        """Lets every answer that is held run to its end."""
        self._service.generations.release()

    # --- how it is done

    def _next_reply(self, question: str) -> Reply:
        with self._lock:
            return self._replies.pop(0) if self._replies else Reply(pieces=("You said: ", question))

    def _handlers(self) -> tuple[grpc.GenericRpcHandler, ...]:
        """Every RPC of the service, each recorded and checked against the script first."""
        by_service: dict[str, dict[str, grpc.RpcMethodHandler[Any, Any]]] = {}
        for method, answer in self._service.unary.items():
            _, service, name = method.path.split("/")
            by_service.setdefault(service, {})[name] = grpc.unary_unary_rpc_method_handler(
                self._unary(name, answer),
                method.request.FromString,
                method.response.SerializeToString,
            )
        for method, stream in self._service.streams.items():
            _, service, name = method.path.split("/")
            by_service.setdefault(service, {})[name] = grpc.unary_stream_rpc_method_handler(
                self._stream(name, stream),
                method.request.FromString,
                method.response.SerializeToString,
            )
        for method, upstream in self._service.upstreams.items():
            _, service, name = method.path.split("/")
            by_service.setdefault(service, {})[name] = grpc.stream_unary_rpc_method_handler(
                self._upstream(name, method.request, upstream),
                method.request.FromString,
                method.response.SerializeToString,
            )
        _, service, name = CHECK.split("/")
        serving = b"\x08\x01"  # HealthCheckResponse{status: SERVING}
        by_service[service] = {
            name: grpc.unary_unary_rpc_method_handler(lambda request, context: serving)
        }
        return tuple(
            grpc.method_handlers_generic_handler(service, handlers)
            for service, handlers in by_service.items()
        )

    def _unary(
        self, name: str, answer: Callable[[Any], Any]
    ) -> Callable[[Any, grpc.ServicerContext], Any]:
        def handle(request: Any, context: grpc.ServicerContext) -> Any:
            self._arrived(name, request, context)
            try:
                with self._lock:
                    return answer(request)
            except Refusal as refusal:
                _abort(context, _refused(refusal))

        return handle

    def _stream(
        self, name: str, answer: Callable[[Any, Any], Iterator[Any]]
    ) -> Callable[[Any, grpc.ServicerContext], Iterator[Any]]:
        def handle(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            self._arrived(name, request, context)
            try:
                yield from answer(request, context)
            except Refusal as refusal:
                _abort(context, _refused(refusal))

        return handle

    def _upstream(
        self, name: str, kind: type[Any], answer: Callable[[Any, Iterator[Any]], Any]
    ) -> Callable[[Iterator[Any], grpc.ServicerContext], Any]:
        """Of many messages the first is recorded: it says what the rest is."""

        def handle(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
            first = next(requests, kind())
            self._arrived(name, first, context)
            try:
                return answer(first, requests)
            except Refusal as refusal:
                _abort(context, _refused(refusal))

        return handle

    def _arrived(self, name: str, request: Any, context: grpc.ServicerContext) -> None:
        headers = {key: str(value) for key, value in context.invocation_metadata()}
        with self._lock:
            self.calls.append(RecordedCall(method=name, request=request, headers=headers))
            scripted = next((f for f in self._failures if f.method in (None, name)), None)
            if scripted is not None:
                self._failures.remove(scripted)
        if scripted is not None:
            _abort(context, scripted.status or _given_up(context))


def _abort(context: grpc.ServicerContext, status: status_pb2.Status) -> NoReturn:
    to_status: Any = rpc_status.to_status
    context.abort_with_status(to_status(status))
    raise AssertionError("abort_with_status raises")


def _given_up(context: grpc.ServicerContext) -> status_pb2.Status:
    """Waits until the caller has gone."""
    gone = threading.Event()
    if context.add_callback(gone.set):
        gone.wait()
    return _status("CANCELLED", "", "the caller has gone")


def _refused(refusal: Refusal) -> status_pb2.Status:
    return _status(refusal.code, refusal.reason, refusal.message, metadata=refusal.metadata)


def _status(
    code: str,
    reason: str,
    message: str,
    *,
    metadata: Mapping[str, str] | None = None,
    retry_after: float | None = None,
    fields: Mapping[str, str] | None = None,
) -> status_pb2.Status:
    """A status as the contract shapes it; without a reason, as the gRPC library would."""
    status = status_pb2.Status(code=code_pb2.Code.Value(code), message=message)
    if reason:
        status.details.add().Pack(
            error_details_pb2.ErrorInfo(reason=reason, domain="ixc.v1", metadata=metadata)
        )
    if retry_after is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(round(retry_after * 1e9))
        status.details.add().Pack(retry)
    if fields:
        bad_request = error_details_pb2.BadRequest()
        for path, description in fields.items():
            bad_request.field_violations.add(field=path, description=description)
        status.details.add().Pack(bad_request)
    return status
