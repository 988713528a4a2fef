"""The contract is written for somebody who will never see our code."""

import re

import pytest

from tests.contract import described

STREAMS = [each for each in described.methods() if each.descriptor.server_streaming]


def test_everything_is_introduced_by_its_name() -> None:
    """Every service, RPC, message and enum says what it is, beginning with its name."""
    elements = (
        *described.services(),
        *described.methods(),
        *described.messages(),
        *described.enums(),
    )
    strangers = [
        each.name for each in elements if not each.prose.startswith(f"{each.descriptor.name} ")
    ]
    assert strangers == []


def test_every_rpc_says_when_to_retry() -> None:
    """Clients retry by what is written, not by guess; CancelGeneration and reads say so too."""
    assert [each.name for each in described.methods() if "Retry: " not in each.prose] == []


@pytest.mark.parametrize("method", STREAMS, ids=lambda each: each.name)
def test_every_stream_says_what_it_holds_and_how_it_breaks(method: described.Element) -> None:
    """Order of events, and what a lost connection means, stand on the RPC itself."""
    for paragraph in ("Before: ", "The stream: ", "If the stream breaks: "):
        assert paragraph in method.prose


def test_fields_with_a_limit_name_it() -> None:
    """A bound mentioned as `Limits.x` exists, so that a client can ask for it."""
    limits = {
        field.descriptor.name for field in described.fields() if field.name.startswith("Limits.")
    }
    mentioned = {
        (each.name, name)
        for each in (*described.fields(), *described.messages(), *described.enum_values())
        for name in re.findall(r"\bLimits\.(\w+)", each.prose)
    }
    assert mentioned
    assert {each for each in mentioned if each[1] not in limits} == set()


def test_comments_refer_to_what_exists() -> None:
    """`Message.field` in a comment names a field of the contract."""
    names = {each.name for each in (*described.fields(), *described.methods())}
    owners = {each.name for each in (*described.messages(), *described.services())}
    everything = (
        *described.services(),
        *described.methods(),
        *described.messages(),
        *described.fields(),
        *described.enums(),
        *described.enum_values(),
    )
    dangling = {
        (each.name, f"{owner}.{name}")
        for each in everything
        for owner, name in re.findall(r"\b([A-Z]\w+)\.(\w+)", each.prose)
        if owner in owners and f"{owner}.{name}" not in names
    }
    assert dangling == set()


def test_enum_values_in_comments_exist() -> None:
    """FINISH_REASON_TIMEOUT and its like are values of the contract."""
    values = {each.descriptor.name for each in described.enum_values()}
    prefixes = tuple(
        name.removesuffix("UNSPECIFIED") for name in values if name.endswith("_UNSPECIFIED")
    )
    everything = (*described.methods(), *described.messages(), *described.fields())
    dangling = {
        (each.name, word)
        for each in everything
        for word in re.findall(r"\b[A-Z]+(?:_[A-Z0-9]+)+\b", each.prose)
        if word.startswith(prefixes) and word not in values
    }
    assert dangling == set()
