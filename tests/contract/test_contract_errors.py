"""Errors: documented once in ErrorReason, named on each RPC, and both saying the same."""

import json
import re
from collections.abc import Iterator

import grpc
import pytest

from ixc_runtime import errors
from ixc_service.status import TABLE
from tests.contract import described

CODES = {code.name for code in grpc.StatusCode} - {"OK", "UNKNOWN"}
REASONS = {
    each.descriptor.name.removeprefix("ERROR_REASON_"): each
    for each in described.enum_values()
    if each.name.startswith("ErrorReason.") and each.descriptor.number != 0
}
# Raised while a server starts; no RPC can meet them, so the contract does not name them.
AT_START = {"WEIGHTS_CORRUPT", "SCHEME_UNSUPPORTED", "KV_CACHE_FULL"}


def code_of(reason: str) -> str:
    """The status code that a reason's comment states."""
    (code,) = set(re.findall(r"\bCode ([A-Z_]+)", REASONS[reason].prose))
    return str(code)


def example_of(reason: str) -> dict[str, object]:
    """The ErrorInfo printed in a reason's comment."""
    text = REASONS[reason].comment
    return dict(json.loads(text[text.index("{") :]))


def stated(method: described.Element) -> Iterator[tuple[str, set[str]]]:
    """Each code in an RPC's "Errors:" list, with the reasons given for it."""
    _, _, listed = method.comment.partition("Errors:\n")
    for item in re.split(r"^ \* ", listed, flags=re.MULTILINE)[1:]:
        code, _, rest = item.partition(" ")
        groups = re.findall(r"\(([A-Z_,\s]+)\)", rest)
        yield code, {reason for group in groups for reason in re.findall(r"[A-Z_]+", group)}


@pytest.mark.parametrize("reason", REASONS)
def test_a_reason(reason: str) -> None:
    """States its code and an example whose metadata is strings under camelCase keys."""
    assert code_of(reason) in CODES
    example = example_of(reason)
    assert set(example) == {"reason", "domain", "metadata"}
    assert (example["reason"], example["domain"]) == (reason, "ixc.v1")
    metadata = example["metadata"]
    assert isinstance(metadata, dict)
    assert all(re.fullmatch(r"[a-z][a-zA-Z]*", key) for key in metadata)
    assert all(isinstance(value, str) for value in metadata.values())


@pytest.mark.parametrize("method", described.methods(), ids=lambda each: each.name)
def test_an_rpc_names_its_status_codes(method: described.Element) -> None:
    """Every code with its reasons, each reason under the code that ErrorReason gives it."""
    listed = list(stated(method))
    assert listed, "an RPC has an Errors list"
    for code, reasons in listed:
        if code == "Any":  # WatchGeneration repeats what befell the generation
            continue
        assert code in CODES
        assert reasons, f"{code} names no reason"
        assert {reason: code_of(reason) for reason in reasons} == dict.fromkeys(reasons, code)


def test_every_reason_belongs_to_an_rpc() -> None:
    """A reason that no RPC can end with would only be noise in clients."""
    named = {
        reason
        for method in described.methods()
        for _, reasons in stated(method)
        for reason in reasons
    }
    assert named == set(REASONS)


@pytest.mark.parametrize("reason", REASONS)
def test_the_server_answers_with_the_documented_code(reason: str) -> None:
    """The service's table of errors and the contract say the same."""
    assert TABLE[reason].code.name == code_of(reason)


def test_every_fault_of_the_runtime_has_a_reason() -> None:
    """What the runtime raises while serving can be told to the caller."""
    raised = {fault.reason for fault in subclasses(errors.RuntimeFault)} - AT_START
    assert raised <= set(REASONS)


def subclasses(fault: type[errors.RuntimeFault]) -> Iterator[type[errors.RuntimeFault]]:
    yield fault
    for each in fault.__subclasses__():
        yield from subclasses(each)
