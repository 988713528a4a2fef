"""Long work in the terminal: what is said of it, and what happens when somebody goes away."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

import ixc_client
from ixc_cli import flags, following, work_bar
from ixc_cli.following import follow
from ixc_cli.main import main
from ixc_cli.outcome import CommandError, Exit

Out = pytest.CaptureFixture[str]

AGREEMENT = ixc_client.LogitAgreement(positions=9, relative_difference=0.0, top1_agreement=1.0)


def merged(load_operation: str = "") -> ixc_client.MergeLoraResult:
    published = ixc_client.PublishedModel(
        model="models/made",
        manifest_digest="",
        files=3,
        size_bytes=2048,
        elapsed=1.0,
        replaced=False,
    )
    return ixc_client.MergeLoraResult(
        published=published,
        adapter="web",
        dtype="float32",
        tensors=3,
        merged_tensors=2,
        text=AGREEMENT,
        image=None,
        load_operation=load_operation,
    )


class Stream(ixc_client.OperationStream[Any]):
    """One that ends with an error, or with a result."""

    def __init__(
        self, end: BaseException | ixc_client.OperationResult | None, name: str = "operations/7"
    ) -> None:
        self._end = end
        self._name = name

    @property
    def operation(self) -> str:
        return self._name

    @property
    def last_sequence(self) -> int:
        return 5

    @property
    def result(self) -> Any:
        return self._end

    def events(self) -> Iterator[ixc_client.OperationEvent]:
        if isinstance(self._end, BaseException):
            raise self._end
        yield from ()

    def close(self) -> None:
        pass


class Server:
    """A client whose watches are these, in order; `watched` are the operations and cursors."""

    def __init__(self, *streams: Stream) -> None:
        self._streams = list(streams)
        self.watched: list[tuple[str, int]] = []
        self.operations = self

    def watch(self, operation: str, *, after_sequence: int = 0) -> Stream:
        self.watched.append((operation, after_sequence))
        return self._streams.pop(0)


def watch(ixc: Server, stream: Stream, **wishes: Any) -> int:
    client: Any = ixc
    return follow(client, stream, "merging", **{"server": "", **wishes})


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "_LOOK_AGAIN_SECONDS", 0.0)


def test_a_refusal_by_the_figures_names_the_flags() -> None:
    """That say how good the result must be; a watcher, who gave none, hears the reason alone."""
    refused = Stream(ixc_client.QualityTooLow("max_mean_kl on texts is 0.3, the limit is 0.2"))
    with pytest.raises(CommandError, match=r"the limit is 0\.2: --max-mean-kl"):
        watch(Server(), refused, limits="--max-mean-kl")
    with pytest.raises(ixc_client.QualityTooLow):
        watch(Server(), refused)


def test_leaving_says_how_to_come_back(capsys: Out) -> None:
    """By a command that can be copied: to the same server, not to the usual one."""
    args: Any = SimpleNamespace(server="gpu:1", tls=True, ca="/my certificates/ca.pem")
    with pytest.raises(CommandError) as left:
        watch(Server(), Stream(KeyboardInterrupt()), server=flags.server_text(args))
    assert left.value.status is Exit.INTERRUPTED
    wanted = "ixc watch --server gpu:1 --tls --ca '/my certificates/ca.pem' operations/7\n"
    assert capsys.readouterr().err.endswith(wanted)


@pytest.mark.parametrize(
    "gone",
    [
        ixc_client.ConnectionLost("lost"),
        ixc_client.ServerUnreachable("refused"),
        ixc_client.Unavailable("it stops", reason="SERVER_DRAINING"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_server_that_goes_and_comes_back(gone: ixc_client.IxcError, capsys: Out) -> None:
    """Is waited for: the watch goes on from the last event, and ends with the work."""
    server = Server(Stream(gone), Stream(merged()))
    assert watch(server, Stream(gone)) == Exit.OK
    assert server.watched == [("operations/7", 5)] * 2
    captured = capsys.readouterr()
    assert captured.out == "models/made\n"
    assert captured.err.count("waiting for it to come back") == 1


def test_a_server_that_does_not_come_back(monkeypatch: pytest.MonkeyPatch, capsys: Out) -> None:
    """Is not waited for longer than anybody would; the work is not given up with it."""
    monkeypatch.setattr(following, "PATIENCE_SECONDS", 0.0)
    with pytest.raises(CommandError, match="lost") as raised:
        watch(Server(), Stream(ixc_client.ConnectionLost("lost")), server="--server gpu:1 ")
    assert raised.value.status is Exit.NO_SERVER
    assert "goes on: ixc watch --server gpu:1 operations/7" in capsys.readouterr().err


def test_a_server_that_was_never_there(capsys: Out) -> None:
    """Nothing was begun, so nothing is waited for."""
    with pytest.raises(ixc_client.ServerUnreachable):
        watch(Server(), Stream(ixc_client.ServerUnreachable("refused"), name=""))
    assert "goes on" not in capsys.readouterr().err


def loaded() -> ixc_client.LoadModelResult:
    info: Any = SimpleNamespace(name="models/made", context_limit=2048)
    return ixc_client.LoadModelResult(info=info)


def test_what_is_to_be_served_when_done(capsys: Out) -> None:
    """Is when the command ends: the next one may ask it. Its name is printed once."""
    server = Server(Stream(loaded(), name="operations/8"))
    assert watch(server, Stream(merged("operations/8")), with_load=True) == Exit.OK
    assert server.watched == [("operations/8", 0)]
    captured = capsys.readouterr()
    assert captured.out == "models/made\n"
    assert "2048 tokens of context" in captured.err


def test_what_was_made_and_cannot_be_served(capsys: Out) -> None:
    """The command fails, and says that the model is there all the same."""
    refused = ixc_client.Overloaded("no room", reason="MEMORY_LOW")
    with pytest.raises(ixc_client.Overloaded, match="no room"):
        watch(Server(Stream(refused)), Stream(merged("operations/8")), with_load=True)
    assert capsys.readouterr().out == "models/made\n"
    with pytest.raises(CommandError, match="models/made is made; the server could not begin"):
        watch(Server(), Stream(merged()), with_load=True)


def test_a_long_stage_without_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: Out) -> None:
    """Says now and then how far it is, so that a log shows work that goes on from work that
    hangs; not with every step.
    """
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    with work_bar.work_bar("quantising demo") as bar:
        for number in range(7):
            bar.step(
                work_bar.Step(
                    stage="quantising layers",
                    stage_index=2,
                    stage_count=7,
                    fraction=number / 10,
                    item=f"model.layers.{number}",
                    eta=75.0,
                )
            )
            now += 10.0
    assert capsys.readouterr().err.splitlines() == [
        "quantising demo: quantising layers (2/7)",
        "quantising demo: 30%, model.layers.3, 1:15 left",
        "quantising demo: 60%, model.layers.6, 1:15 left",
    ]


def test_interrupted(monkeypatch: pytest.MonkeyPatch, capsys: Out) -> None:
    """A command that was stopped ends with the shell's status for that, and no error."""
    end = CommandError("", Exit.INTERRUPTED)

    def stopped(argv: object) -> int:
        raise end

    monkeypatch.setattr("ixc_cli.watch.run", stopped)
    assert main(["watch"]) == Exit.INTERRUPTED
    assert capsys.readouterr().err == ""
