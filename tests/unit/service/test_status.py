"""Errors on the wire: one table, one size, no words of others."""

import pytest
from google.rpc import error_details_pb2
from hypothesis import given
from hypothesis import strategies as st

from ixc_runtime.errors import (
    ContextOverflow,
    EngineFault,
    EngineLost,
    FieldInvalid,
    QueueFull,
    RuntimeFault,
)
from ixc_service import errors
from ixc_service.errors import RequestInvalid, ServiceFault, SessionNotFound, Violation
from ixc_service.limits import MAX_ERROR_DETAILS_BYTES
from ixc_service.moments import SystemClock
from ixc_service.status import TABLE, FaultDesk, status_of, trailers

DESK = FaultDesk("me", SystemClock())


def info_of(fault: RuntimeFault) -> error_details_pb2.ErrorInfo:
    info = error_details_pb2.ErrorInfo()
    assert status_of(fault).details[0].Unpack(info)
    return info


def test_every_fault_of_the_service_is_in_the_table() -> None:
    """Its reason has a code."""

    def tree(root: type[ServiceFault]) -> list[type[ServiceFault]]:
        return [root, *(each for child in root.__subclasses__() for each in tree(child))]

    assert {each.reason for each in tree(errors.ServiceFault)} <= set(TABLE)


@given(st.lists(st.tuples(st.text(max_size=300), st.text(max_size=3000)), min_size=1, max_size=60))
def test_details_fit(pairs: list[tuple[str, str]]) -> None:
    """However many violations there are, 4 KiB hold them, the first among them."""
    violations = tuple(
        Violation(field=field, rule="BAD", description=text) for field, text in pairs
    )
    status = status_of(RequestInvalid(violations))
    assert status.ByteSize() <= MAX_ERROR_DETAILS_BYTES


def test_metadata_is_in_the_contracts_spelling() -> None:
    """camelCase, whichever way the fault was raised."""
    fault = ContextOverflow("too long", prompt_tokens=5, contextLimit=4)
    assert dict(info_of(fault).metadata) == {"promptTokens": "5", "contextLimit": "4"}
    assert info_of(fault).domain == "ixc.v1"


def test_what_was_not_found_is_named() -> None:
    """ResourceInfo beside ErrorInfo, and the message."""
    resource = error_details_pb2.ResourceInfo()
    status = status_of(SessionNotFound("sessions/abcd"))
    assert status.message == "no such session: sessions/abcd"
    assert status.details[1].Unpack(resource)
    assert resource.resource_type == "ixc.v1.Session"
    assert resource.resource_name == "sessions/abcd"


def test_a_runtime_violation_names_its_field() -> None:
    """FieldInvalid of the runtime gets a BadRequest too, and a message that says what it is about,
    once.
    """
    bad = error_details_pb2.BadRequest()
    assert status_of(FieldInvalid("task", "must be web")).message == "task: must be web"
    assert status_of(FieldInvalid("sampling.seed", "seed is x")).message == "seed is x"
    assert status_of(FieldInvalid("sampling.top_p", "is 7")).details[1].Unpack(bad)
    assert bad.field_violations[0].field == "sampling.top_p"


def test_when_to_come_back() -> None:
    """RetryInfo and the push-back trailer say the same; where waiting is vain there is neither."""
    fault = QueueFull("full")
    status = status_of(fault)
    retry = error_details_pb2.RetryInfo()
    assert status.details[1].Unpack(retry)
    assert retry.retry_delay.seconds == 1
    assert dict(trailers(fault, status))["grpc-retry-pushback-ms"] == "1000"
    other = ContextOverflow("long")
    assert "grpc-retry-pushback-ms" not in dict(trailers(other, status_of(other)))


@pytest.mark.parametrize(
    "error", [ValueError("canary"), EngineFault("canary"), KeyError("canary"), OSError("canary")]
)
def test_foreign_words_stay_here(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """The caller gets an incident, the log gets it too with where it happened; nobody the text."""
    fault = DESK.presentable(error, during="a test")
    incident = info_of(fault).metadata["incident"]
    assert incident
    assert "canary" not in str(status_of(fault))
    (record,) = caplog.records
    assert record.__dict__["fields"]["incident"] == incident
    assert DESK.presentable(fault, during="again").metadata["incident"] == incident


def test_a_lost_engine_names_the_instance() -> None:
    """So that a caller behind a balancer can tell which server it was."""
    assert info_of(DESK.presentable(EngineLost("gone"), during="x")).metadata["instance"] == "me"
