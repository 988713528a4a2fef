"""Conversations that the server keeps."""

import pytest

import ixc_client
from ixc_client import OnBusy, Sampling
from ixc_client.testing import FakeServer


def test_a_second_turn_finds_the_first_cached(server: FakeServer, ixc: ixc_client.Client) -> None:
    """The server keeps the history; the answer says how much of it was not computed again."""
    server.reply("A cat.")
    server.reply("Black.")
    with ixc.session() as chat:
        first = chat.say("What?", images=b"cat")
        second = chat.say("Its colour?")
    assert (first.turn_index, second.turn_index) == (1, 2)
    assert first.usage.cached_tokens == 0
    assert second.usage.cached_tokens == first.usage.prompt_tokens + first.usage.output_tokens


def test_leaving_the_block_deletes_the_session(ixc: ixc_client.Client) -> None:
    """Unless it is to be kept."""
    with ixc.session():
        pass
    with ixc.session(keep=True) as kept:
        pass
    assert [info.name for info in ixc.list_sessions()] == [kept.name]


def test_an_error_in_the_block_is_not_hidden(server: FakeServer, ixc: ixc_client.Client) -> None:
    """Not even if deleting fails as well."""
    server.fail("INTERNAL", "ENGINE_FAULT", method="DeleteSession")
    with pytest.raises(LookupError), ixc.session():
        raise LookupError


def test_a_session_is_created_once_and_lazily(server: FakeServer, ixc: ixc_client.Client) -> None:
    """With the first thing asked of it."""
    chat = ixc.session(system="Be brief.", sampling=Sampling(temperature=0), ttl=60)
    assert server.calls == []
    with pytest.raises(ixc_client.UsageError, match="not created"):
        _ = chat.name
    chat.say("Hi")
    chat.say("Ho")
    assert [call.method for call in server.calls] == ["CreateSession", "Chat", "Chat"]
    info = chat.info()
    assert (info.system, info.sampling, info.ttl) == ("Be brief.", Sampling(temperature=0), 60)


def test_creation_is_tried_again_under_the_same_request_id(
    server: FakeServer, ixc: ixc_client.Client
) -> None:
    """So that one wish makes one session."""
    server.fail("UNAVAILABLE", method="CreateSession")
    ixc.session().open()
    first, second = (call.request.request_id for call in server.calls)
    assert first == second


def test_every_call_of_a_session_carries_its_header(
    server: FakeServer, ixc: ixc_client.Client
) -> None:
    """Meshes keep a session's calls on one server by it."""
    with ixc.session(session_id="pictures") as chat:
        chat.say("Hi")
        list(chat.turns())
    headers = [call.headers.get("x-session-id") for call in server.calls]
    assert headers == [None, *["sessions/pictures"] * 3]


def test_turns_are_listed_over_pages(server: FakeServer, ixc: ixc_client.Client) -> None:
    """All of them, oldest first, pictures by reference."""
    with ixc.session() as chat:
        chat.say("0", images=b"x")
        for index in range(1, 60):
            chat.say(str(index))
        turns = list(chat.turns(token_ids=True))
    assert [turn.user.text for turn in turns] == [str(index) for index in range(60)]
    assert len(turns[0].user.images) == 1
    assert turns[5].assistant.text == "You said: 5"
    assert turns[5].token_ids
    assert [call.method for call in server.calls].count("ListTurns") == 2


def test_fork_and_rewind(ixc: ixc_client.Client) -> None:
    """Both go on independently; a rewind is for good."""
    with ixc.session() as chat:
        for text in ("a", "b", "c"):
            chat.say(text)
        fork = chat.fork(at_turn=2)
        assert chat.rewind(1).turn_count == 1
        assert [turn.user.text for turn in fork.turns()] == ["a", "b"]
        assert fork.info().parent == chat.name
        assert chat.fork().info().turn_count == 1


def test_rewinding_too_far_names_the_turns(ixc: ixc_client.Client) -> None:
    """Typed, with the numbers."""
    with ixc.session() as chat, pytest.raises(ixc_client.TurnNotFound) as caught:
        chat.rewind(3)
    assert caught.value.metadata["turnCount"] == "0"


def test_update_changes_what_is_given(ixc: ixc_client.Client) -> None:
    """And nothing else."""
    with ixc.session(ttl=60, labels={"a": "1"}) as chat:
        info = chat.update(labels={"b": "2"})
        assert (info.ttl, info.labels) == (60, {"b": "2"})
        assert chat.update(ttl=None).ttl == 3600
        with pytest.raises(ixc_client.UsageError, match="nothing to update"):
            chat.update()
        with pytest.raises(ixc_client.EtagMismatch):
            chat.update(ttl=5, etag=info.etag)


def test_a_busy_session_refuses_with_the_generation(
    server: FakeServer, ixc: ixc_client.Client
) -> None:
    """So that the caller can watch it or cancel it."""
    server.reply("a", hold=True)
    with ixc.session() as chat, chat.stream("x") as stream:
        next(stream)
        with pytest.raises(ixc_client.SessionBusy) as caught:
            chat.say("y", on_busy=OnBusy.REJECT)
        assert caught.value.metadata["generation"] == stream.generation


@pytest.mark.parametrize("keep", [False, True])
def test_a_stopped_turn_leaves_no_trace_unless_asked_to(
    server: FakeServer, ixc: ixc_client.Client, keep: bool
) -> None:
    """What was said until then is committed or forgotten, question and all."""
    server.reply("a", hold=True)
    with ixc.session() as chat:
        with chat.stream("x", keep_partial=keep) as stream:
            next(stream)
        assert [turn.assistant.text for turn in chat.turns()] == ["a"] * keep
        assert chat.say("y").turn_index == 1 + keep


def test_expected_turn_guards_against_others(ixc: ixc_client.Client) -> None:
    """Two programs on one session notice each other."""
    with ixc.session() as chat:
        chat.say("a", expected_turn=1)
        with pytest.raises(ixc_client.TurnConflict) as caught:
            chat.say("b", expected_turn=1)
    assert caught.value.metadata["actual"] == "2"


def test_counting_includes_the_history(ixc: ixc_client.Client) -> None:
    """What the next turn would cost."""
    with ixc.session() as chat:
        used = chat.say("abc").usage
        count = chat.count("de")
    assert count.total_tokens == used.prompt_tokens + used.output_tokens + 2


def test_open_session_by_short_or_full_name(ixc: ixc_client.Client) -> None:
    """And leaving its block leaves it there."""
    ixc.session(session_id="holiday", keep=True).say("a")
    with ixc.open_session("holiday") as chat:
        assert chat.say("b").turn_index == 2
    assert ixc.get_session("sessions/holiday").turn_count == 2
    ixc.delete_session("holiday")
    ixc.delete_session("holiday")
    with pytest.raises(ixc_client.SessionNotFound):
        ixc.get_session("holiday")


def test_sessions_are_listed_by_label(ixc: ixc_client.Client) -> None:
    """Over pages too."""
    for index in range(60):
        ixc.session(labels={"even": str(index % 2 == 0)}, keep=True).open()
    assert len(list(ixc.list_sessions())) == 60
    assert len(list(ixc.list_sessions(labels={"even": "True"}))) == 30


def test_generations_of_a_session_are_listed(ixc: ixc_client.Client) -> None:
    """And no others."""
    ixc.generate("x")
    with ixc.session() as chat:
        answer = chat.say("y")
        assert [info.name for info in ixc.list_generations(session=chat.name)] == [
            answer.generation
        ]
