"""What goes wrong arrives as an error of ours: typed, with reason, numbers and a hint."""

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

import ixc_client
from ixc.v1 import error_reason_pb2
from ixc_client import Retries, Timeouts, _errors, _status
from ixc_client.testing import FakeServer

REASONS = [
    name.removeprefix("ERROR_REASON_")
    for name in error_reason_pb2.ErrorReason.DESCRIPTOR.values_by_name
    if not name.endswith("UNSPECIFIED")
]


def status(code: grpc.StatusCode, reason: str = "", message: str = "") -> status_pb2.Status:
    result = status_pb2.Status(code=code.value[0], message=message)
    if reason:
        result.details.add().Pack(error_details_pb2.ErrorInfo(reason=reason, domain="ixc.v1"))
    return result


def test_the_tree_on_top_of_the_module_is_the_tree_below_it() -> None:
    """Every class stands in the drawing, under its own base."""
    drawn: dict[str, str] = {}
    path: list[str] = []
    for line in (_errors.__doc__ or "").splitlines():
        head = line.split("  ")[0] if not line.startswith(("│", " ", "├", "└")) else line
        name = head.lstrip("│├└─ ").split(" ")[0]
        if not hasattr(_errors, name) or not name[:1].isupper():
            continue
        depth = (len(line) - len(line.lstrip("│├└─ "))) // 4
        path[depth:] = [name]
        drawn[name] = path[depth - 1] if depth else "Exception"
    defined = {
        name: kind.__bases__[0].__name__
        for name, kind in vars(_errors).items()
        if isinstance(kind, type) and issubclass(kind, _errors.IxcError)
    }
    assert drawn == defined


@pytest.mark.parametrize("reason", REASONS)
def test_every_reason_of_the_contract_is_a_server_error(reason: str) -> None:
    """Whatever its code; the reason is kept word for word."""
    error = _status.error_from_status(status(grpc.StatusCode.INTERNAL, reason))
    assert isinstance(error, ixc_client.ServerError)
    assert error.reason == reason


def test_table_of_reasons_names_only_reasons_of_the_contract() -> None:
    """A misspelt one would never match."""
    assert set(_status._BY_REASON) <= set(REASONS)


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code.value[0]])
def test_every_code_is_an_error_of_ours(code: grpc.StatusCode) -> None:
    """With and without an ErrorInfo, known reason or not."""
    for reason in ("", "NEWER_THAN_THIS_CLIENT"):
        error = _status.error_from_status(status(code, reason), started=False)
        assert isinstance(error, ixc_client.IxcError)
        assert error.code == code.name


@pytest.mark.parametrize(
    ("code", "message", "started", "kind"),
    [
        ("UNAVAILABLE", "failed to connect", False, ixc_client.ServerUnreachable),
        ("UNAVAILABLE", "Socket closed", True, ixc_client.ConnectionLost),
        ("INTERNAL", "RST_STREAM with error code 2", True, ixc_client.ConnectionLost),
        ("UNKNOWN", "Stream removed", True, ixc_client.ConnectionLost),
        ("INTERNAL", "something else", True, ixc_client.ServerFault),
        (
            "RESOURCE_EXHAUSTED",
            "Received message larger than max",
            False,
            ixc_client.MessageTooLarge,
        ),
        ("DEADLINE_EXCEEDED", "Deadline Exceeded", False, ixc_client.DeadlineExceeded),
    ],
)
def test_the_network_is_told_from_the_server(
    code: str, message: str, started: bool, kind: type[ixc_client.IxcError]
) -> None:
    """A server killed under a stream shows as INTERNAL with a reset; it is a lost connection."""
    failure = status(grpc.StatusCode[code], message=message)
    assert type(_status.error_from_status(failure, started=started)) is kind


def test_an_error_carries_everything_the_server_said(
    server: FakeServer, ixc: ixc_client.Client
) -> None:
    """Reason, code, numbers, and the request it belongs to."""
    server.fail(
        "OUT_OF_RANGE",
        "CONTEXT_OVERFLOW",
        message="the prompt is too long",
        metadata={"promptTokens": "30112", "contextLimit": "24576"},
    )
    with pytest.raises(ixc_client.ContextOverflow) as caught:
        ixc.generate("x", request_id="mine")
    error = caught.value
    assert (error.reason, error.code) == ("CONTEXT_OVERFLOW", "OUT_OF_RANGE")
    assert error.metadata["contextLimit"] == "24576"
    assert error.request_id == "mine"
    assert not error.retryable
    assert str(error) == "the prompt is too long (CONTEXT_OVERFLOW)"


def test_all_refused_fields_are_told_at_once(server: FakeServer, ixc: ixc_client.Client) -> None:
    """In the error's text too."""
    server.fail(
        "INVALID_ARGUMENT",
        "FIELD_INVALID",
        message="sampling.top_p: must be at most 1 (and 1 more)",
        fields={"sampling.top_p": "must be at most 1", "adapter": "is too long"},
    )
    with pytest.raises(ixc_client.InvalidRequest) as caught:
        ixc.generate("x")
    assert {violation.field for violation in caught.value.violations} == {
        "sampling.top_p",
        "adapter",
    }
    assert str(caught.value) == (
        "sampling.top_p: must be at most 1; adapter: is too long (FIELD_INVALID)"
    )


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ("task: must be web", "task: must be web"),
        ("must be web", "must be web"),
        ("no", "no; task: must be web"),
    ],
)
def test_a_refused_field_is_told_once(
    server: FakeServer, ixc: ixc_client.Client, message: str, text: str
) -> None:
    """Wherever the server has put it."""
    server.fail(
        "INVALID_ARGUMENT", "FIELD_INVALID", message=message, fields={"task": "must be web"}
    )
    with pytest.raises(ixc_client.InvalidRequest) as caught:
        ixc.generate("x")
    assert str(caught.value) == f"{text} (FIELD_INVALID)"


def test_no_grpc_type_escapes(server: FakeServer) -> None:
    """Not as the error, nor in its public attributes."""
    server.fail("UNAVAILABLE", "SERVER_DRAINING")
    with (
        server.client(retries=Retries(attempts=1)) as ixc,
        pytest.raises(ixc_client.Unavailable) as caught,
    ):
        ixc.load()
    assert not isinstance(caught.value, grpc.RpcError)
    assert not any(isinstance(value, grpc.RpcError) for value in vars(caught.value).values())


def test_reads_are_tried_again(server: FakeServer, ixc: ixc_client.Client) -> None:
    """A server that is gone for a moment is not noticed."""
    server.fail("UNAVAILABLE", "SERVER_DRAINING", method="GetLoad")
    server.fail("UNAVAILABLE", method="GetLoad")
    assert ixc.load().state == "serving"
    assert len(server.calls) == 3


def test_giving_up_is_visible_in_the_error(server: FakeServer, ixc: ixc_client.Client) -> None:
    """How often it was tried."""
    for _ in range(4):
        server.fail("UNAVAILABLE", "STORE_UNAVAILABLE")
    with pytest.raises(ixc_client.Unavailable) as caught:
        ixc.load()
    assert caught.value.attempts == 4
    assert "4 attempts" in str(caught.value)


def test_what_is_not_safe_is_not_tried_again(server: FakeServer, ixc: ixc_client.Client) -> None:
    """An update may have happened; only its caller can tell."""
    with ixc.session() as chat:
        server.fail("UNAVAILABLE", method="UpdateSession")
        with pytest.raises(ixc_client.ServerUnreachable):
            chat.update(ttl=5)


@pytest.mark.parametrize(
    ("code", "reason"), [("INVALID_ARGUMENT", "FIELD_INVALID"), ("INTERNAL", "ENGINE_FAULT")]
)
def test_what_cannot_succeed_is_not_tried_again(
    server: FakeServer, ixc: ixc_client.Client, code: str, reason: str
) -> None:
    """One call, one answer."""
    server.fail(code, reason)
    with pytest.raises(ixc_client.ServerError):
        ixc.load()
    assert len(server.calls) == 1


def test_a_full_queue_is_waited_for_as_long_as_the_server_asks(
    server: FakeServer, ixc: ixc_client.Client
) -> None:
    """Within the client's own bound."""
    server.fail("RESOURCE_EXHAUSTED", "QUEUE_FULL", retry_after=0.01)
    server.reply("at last")
    assert ixc.generate("x").text == "at last"


def test_a_full_queue_beyond_the_bound_is_an_error(
    server: FakeServer, ixc: ixc_client.Client
) -> None:
    """With the time the server named, so that the caller can wait."""
    server.fail("RESOURCE_EXHAUSTED", "QUEUE_FULL", retry_after=60)
    with pytest.raises(ixc_client.QueueFull) as caught:
        ixc.generate("x")
    assert caught.value.retry_after_seconds == 60
    assert caught.value.retryable


def test_nobody_there_is_an_error_within_moments() -> None:
    """Not a hang, and with the address in its text."""
    with (
        ixc_client.Client("127.0.0.1:1", retries=Retries(attempts=2, first_delay=0)) as ixc,
        pytest.raises(ixc_client.ServerUnreachable, match=r"127\.0\.0\.1:1"),
    ):
        ixc.load()


def test_a_call_that_takes_too_long_is_an_error(server: FakeServer) -> None:
    """The timeout is the caller's bound: it is not tried again."""
    server.hang()
    with server.client(timeouts=Timeouts(unary=0.05)) as ixc:
        with pytest.raises(ixc_client.DeadlineExceeded) as caught:
            ixc.load()
        assert caught.value.attempts == 1


def test_a_closed_client_says_so(server: FakeServer) -> None:
    """For every kind of call, and closing twice is no error."""
    ixc = server.client()
    ixc.close()
    ixc.close()
    for call in (ixc.load, lambda: ixc.generate("x"), lambda: next(ixc.stream("x"))):
        with pytest.raises(ixc_client.ClientClosed):
            call()
    assert "closed" in repr(ixc)


def test_damaged_error_details_are_no_new_error() -> None:
    """A proxy may have cut them; the code and the message remain."""
    assert _status._parsed(b"\xff\xff") is None
