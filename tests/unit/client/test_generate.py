"""One prompt or a list of them, whole or as it comes."""

import pytest

import ixc_client
from ixc_client import FinishReason, Output, Sampling, SystemPreset
from ixc_client.testing import FakeServer


def test_one_prompt_gives_one_answer(server: FakeServer, ixc: ixc_client.Client) -> None:
    """Text, usage and settings in one value, which prints as its text."""
    server.reply("Paris", ".")
    answer = ixc.generate("What is the capital of France?", sampling=Sampling(seed=7))
    assert str(answer) == "Paris."
    assert answer.finish_reason is FinishReason.STOP
    assert answer.usage.output_tokens == 6
    assert answer.sampling.seed == 7
    assert answer.request_id == server.calls[0].request.request_id


def test_a_list_gives_a_list_in_order(server: FakeServer, ixc: ixc_client.Client) -> None:
    """With and without pictures, however the answers overtake each other."""
    prompts = ["one", ("two", b"picture"), ixc_client.Message("three")]
    answers = ixc.generate(prompts, concurrency=2)
    assert [answer.text for answer in answers] == [
        f"You said: {n}" for n in ("one", "two", "three")
    ]
    assert [answer.usage.image_tokens for answer in answers] == [0, 100, 0]


def test_an_empty_list_gives_an_empty_list(ixc: ixc_client.Client) -> None:
    """Nothing in, nothing out."""
    nothing: list[str] = []
    assert ixc.generate(nothing) == []


def test_a_failure_in_a_list_stops_the_rest(server: FakeServer, ixc: ixc_client.Client) -> None:
    """It is raised at once; what still runs is cancelled on the server."""
    server.reply("never ", "ending", hold=True)
    server.fail("INVALID_ARGUMENT", "PROMPT_EMPTY", method="Generate")
    with pytest.raises(ixc_client.PromptEmpty):
        ixc.generate(["first", "second"], concurrency=2)
    states = {info.state for info in ixc.list_generations()}
    assert states == {ixc_client.GenerationState.CANCELLED}


def test_a_list_cannot_share_a_request_id(ixc: ixc_client.Client) -> None:
    """It would be one request."""
    with pytest.raises(ixc_client.UsageError, match="request_id"):
        ixc.generate(["a", "b"], request_id="same")


def test_options_reach_the_request(server: FakeServer, ixc: ixc_client.Client) -> None:
    """Each in its field."""
    ixc.generate(
        "x",
        images=b"picture",
        system=SystemPreset.META_INSTRUCTION_DEFAULT,
        adapter="web",
        sampling=Sampling(temperature=0),
        output=Output(token_ids=True),
        labels={"job": "7"},
        request_id="mine",
    )
    request = server.calls[0].request
    assert request.request_id == "mine"
    assert request.WhichOneof("system") == "system_preset"
    assert request.adapter == "web"
    assert request.sampling.temperature == 0
    assert dict(request.labels) == {"job": "7"}


def test_a_whole_answer_carries_its_ids(server: FakeServer, ixc: ixc_client.Client) -> None:
    """Asked for, they come with the end instead of with deltas."""
    server.reply("ab")
    assert ixc.generate("x", output=Output(token_ids=True)).token_ids == (97, 98)


def test_counting_and_tokens(server: FakeServer, ixc: ixc_client.Client) -> None:
    """What a prompt costs, and text to ids and back."""
    count = ixc.count("abc", images=[b"a", b"b"])
    assert (count.total_tokens, count.image_tokens, len(count.images)) == (203, 200, 2)
    assert ixc.tokenize("hi") == [104, 105]
    assert ixc.detokenize([104, 105]) == "hi"


def test_the_server_describes_itself(ixc: ixc_client.Client) -> None:
    """Model, limits, load and health as plain values."""
    assert ixc.model().adapters == ("web", "write")
    assert [model.name for model in ixc.list_models()] == ["models/fake"]
    assert ixc.model().default_sampling.top_p == 0.8
    info = ixc.server_info()
    assert info.limits["context_limit"] == 24576
    assert info.plan["backend"] == "cpu"
    assert "image_input" in info.capabilities
    assert ixc.load().state == "serving"
    assert ixc.is_ready()


def test_a_model_is_named_with_or_without_its_collection(
    server: FakeServer, ixc: ixc_client.Client
) -> None:
    """Wherever one may be named."""
    for name in ("fake", "models/fake"):
        ixc.generate("x", model=name)
        ixc.count("x", model=name)
        ixc.session(model=name).info()
        ixc.tokenize("x", model=name)
        ixc.detokenize([1], model=name)
        assert ixc.model(name).name == "models/fake"
    asked = [call.request for call in server.calls if call.method != "GetSession"]
    named = {getattr(each, "model", "") or getattr(each, "name", "") for each in asked}
    sessions = {each.session.model for each in asked if hasattr(each, "session_id")}
    assert (named - {""}, sessions) == ({"models/fake"}, {"models/fake"})


def test_an_unknown_model_is_a_typed_error(ixc: ixc_client.Client) -> None:
    """With the name that was asked for."""
    with pytest.raises(ixc_client.ModelNotFound) as caught:
        ixc.model("models/other")
    assert caught.value.metadata == {"model": "models/other"}
