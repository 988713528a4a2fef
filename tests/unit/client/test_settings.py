"""Timeouts, retries and TLS as values."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ixc_client
from ixc_client import NOT_GIVEN, Retries, Timeouts, Tls


@pytest.mark.parametrize("seconds", [0, -1, math.inf, math.nan])
def test_timeouts_that_are_not_finite_are_refused(seconds: float) -> None:
    """No client waits for ever."""
    with pytest.raises(ValueError, match="finite"):
        Timeouts(idle=seconds)


def test_settings_show_what_they_are_and_hide_secrets() -> None:
    """A repr can be pasted back, but names no key file."""
    assert repr(Timeouts(idle=60)) == "Timeouts(unary=5.0, idle=60)"
    assert "key.pem" not in repr(Tls(certificate="c.pem", private_key="key.pem"))
    assert repr(NOT_GIVEN) == "NOT_GIVEN"


def test_certificate_without_its_key_is_refused() -> None:
    """They belong together."""
    with pytest.raises(ValueError, match="both or neither"):
        Tls(certificate="c.pem")


@given(
    attempt=st.integers(1, 20),
    retry_after=st.none() | st.floats(0, 10),
    jitter=st.floats(0, 1, exclude_max=True),
)
def test_delays_stay_within_their_bounds(
    attempt: int, retry_after: float | None, jitter: float
) -> None:
    """Never shorter than the server asked, never longer than max_delay, and then not at all."""
    retries = Retries(attempts=5, first_delay=0.5, max_delay=4)
    delay = retries.delay(attempt, retry_after, lambda: jitter)
    if attempt >= 5 or (retry_after or 0) > 4:
        assert delay is None
    else:
        assert delay is not None
        assert (retry_after or 0) <= delay <= 4


def test_delays_grow_with_every_failure() -> None:
    """Twice as long each time, up to the longest."""
    retries = Retries(attempts=10, first_delay=1, max_delay=5)
    assert [retries.delay(n, None, lambda: 1.0) for n in (1, 2, 3, 4)] == [1, 2, 4, 5]


@pytest.mark.parametrize("wrong", [{"attempts": 0}, {"first_delay": 3, "max_delay": 1}])
def test_retries_that_make_no_sense_are_refused(wrong: dict[str, int]) -> None:
    """With the value in the message."""
    with pytest.raises(ValueError, match=r"0|3"):
        Retries(**wrong)


def test_header_names_in_capitals_are_refused() -> None:
    """GRPC itself would fail at the first call, with a message about metadata."""
    with pytest.raises(ixc_client.UsageError, match="'authorization'"):
        ixc_client.Client(headers={"Authorization": "Bearer x"})


def test_unreadable_certificate_is_named() -> None:
    """At once, not at the first call."""
    with pytest.raises(ixc_client.UsageError, match=r"/nowhere/ca\.pem"):
        ixc_client.Client(tls=Tls(root_certificates="/nowhere/ca.pem"))
