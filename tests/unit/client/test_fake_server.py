"""The fake server keeps its own promises to the tests of users."""

import pytest

import ixc_client
from ixc_client.testing import FakeServer


def test_scripted_answers_nobody_asked_for_fail_the_test() -> None:
    """Otherwise a test passes that did not do what it says."""
    with pytest.raises(AssertionError, match="1 scripted"), FakeServer() as server:
        server.reply("never asked")


def test_a_failing_test_is_not_hidden_by_its_script() -> None:
    """Its own error is the interesting one."""
    with pytest.raises(LookupError), FakeServer() as server:
        server.reply("never asked")
        raise LookupError


def test_calls_are_recorded(server: FakeServer, ixc: ixc_client.Client) -> None:
    """With method, message and headers."""
    ixc.tokenize("hi")
    call = server.calls[0]
    assert (call.method, call.request.text) == ("Tokenize", "hi")
    assert "user-agent" in call.headers


def test_without_a_script_it_repeats_the_question(ixc: ixc_client.Client) -> None:
    """Enough for many tests."""
    assert ixc.generate("hello").text == "You said: hello"


def test_it_refuses_what_a_server_refuses(ixc: ixc_client.Client) -> None:
    """Empty prompts, unknown adapters, taken ids."""
    with pytest.raises(ixc_client.PromptEmpty):
        ixc.generate(ixc_client.Message())
    with pytest.raises(ixc_client.AdapterUnavailable):
        ixc.generate("x", adapter="none")
    ixc.session(session_id="taken", keep=True).open()
    with pytest.raises(ixc_client.AlreadyExists):
        ixc.session(session_id="taken").open()
