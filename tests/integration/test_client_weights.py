"""The Python client and the command line, with a real server's long work."""

import asyncio
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeVar

import pytest

import ixc_client
from ixc_cli.main import main
from ixc_cli.outcome import Exit
from ixc_runtime.models_root import ModelsRoot
from ixc_runtime.models_root.staging import Mark
from tests.fakes.running_server import Served, running_server
from tests.fakes.tcp_proxy import TcpProxy
from tests.fakes.tiny_models_root import SOURCE, write_models_root

T = TypeVar("T")
Out = pytest.CaptureFixture[str]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("ixc_runtime.jobs.host.WORKER_MODULE", "tests.fakes.synthetic_job")
    return write_models_root(tmp_path / "models")


@pytest.fixture
async def served(tmp_path: Path, root: Path) -> AsyncIterator[Served]:
    async with running_server(tmp_path, models_root=root) as server:
        yield server


def address(served: Served) -> str:
    return served.server.addresses[0]


async def blocking(call: Callable[[], T]) -> T:
    """What a program without asyncio does, beside the server."""
    return await asyncio.to_thread(call)


async def test_progress_and_result(served: Served) -> None:
    """Iterating gives the progress, the result comes last."""

    def merge() -> None:
        with ixc_client.Client(address(served)) as ixc:
            with ixc.weights.merge_lora(SOURCE, "made", task="web") as work:
                fractions = [progress.fraction for progress in work]
                assert fractions == sorted(fractions) and fractions
                assert work.result.model == "models/made"
                assert work.result.text.top1_agreement == 1.0 and work.result.image is None
            record = ixc.operations.get(work.operation)
            assert record.state == "succeeded" and record.result == work.result
            assert [each.name for each in ixc.operations.list()] == [work.operation]
            assert next(ixc.operations.list(states=["failed"]), None) is None
            assert {model.name: model.state for model in ixc.list_models()}[
                f"models/{SOURCE}"
            ] == "available"
            ixc.operations.delete(work.operation)
            with pytest.raises(ixc_client.OperationNotFound):
                ixc.operations.get(work.operation)

    await blocking(merge)


async def test_the_asyncio_twin(served: Served, root: Path) -> None:
    """Says and does the same; cancelling ends the watch with Cancelled."""
    held = root / SOURCE / "hold-2"
    held.touch()
    async with ixc_client.AsyncClient(address(served)) as ixc:
        work = ixc.weights.merge_lora(SOURCE, "made", task="web")
        async for event in work.events():
            if isinstance(event, ixc_client.OperationMetric):
                break
        assert (await ixc.operations.cancel(work.operation)).state == "cancelled"
        with pytest.raises(ixc_client.Cancelled) as raised:
            await work.wait()
        assert raised.value.reason == "OPERATION_CANCELLED"
        held.unlink()
        again = ixc.weights.merge_lora(SOURCE, "made", task="web")
        assert (await again.wait()).model == "models/made"
        listed = [each.state async for each in ixc.operations.list()]
        assert sorted(listed) == ["cancelled", "succeeded"]


async def test_a_stream_that_breaks(served: Served) -> None:
    """Is taken up from the last event; nothing comes twice and nothing is missing."""
    retries = ixc_client.Retries(attempts=20, first_delay=0.01, max_delay=0.1)
    async with (
        TcpProxy(address(served)) as proxy,
        ixc_client.AsyncClient(proxy.address, retries=retries) as ixc,
    ):
        proxy.cut_after(900, 1000, 1100, 1300)
        work = ixc.weights.merge_lora(SOURCE, "made", task="web")
        events = [event async for event in work.events()]
        layers = [each.layer for each in events if isinstance(each, ixc_client.OperationMetric)]
        assert layers == ["config.json", "a.bin", "b.bin"]
        assert work.result.model == "models/made"
        assert proxy.num_cut >= 2


async def test_a_server_that_is_restarted(tmp_path: Path, root: Path) -> None:
    """The stream goes on over it: the client watches, and sees the work taken up."""
    held = root / SOURCE / "hold-2"
    held.touch()
    listen = f"unix:{tmp_path}/ixc.sock"
    retries = ixc_client.Retries(attempts=100, max_delay=0.1)
    async with ixc_client.AsyncClient(listen, retries=retries) as ixc:
        work = ixc.weights.merge_lora(SOURCE, "made", task="web")
        events = work.events()
        async with running_server(tmp_path, models_root=root, listen=listen):
            async for event in events:
                if isinstance(event, ixc_client.OperationMetric):
                    break
        held.unlink()
        async with running_server(tmp_path, models_root=root, listen=listen):
            rest = [event async for event in events]
        (restarted,) = [e for e in rest if isinstance(e, ixc_client.OperationRestarted)]
        assert restarted.attempt == 2
        assert work.result is not None


async def test_wishes_that_cannot_be_sent(served: Served) -> None:
    """Are refused before anything is sent, or with the server's reason."""
    async with ixc_client.AsyncClient(address(served)) as ixc:
        with pytest.raises(ixc_client.UsageError):
            ixc.weights.merge_lora(SOURCE, "made")
        with pytest.raises(ixc_client.UsageError):
            ixc.weights.merge_lora(SOURCE, "made", task="web", dtype="int8")
        with pytest.raises(ixc_client.InvalidRequest):
            await ixc.weights.merge_lora(SOURCE, "../made", task="web").wait()
        with pytest.raises(ixc_client.ModelNotFound):
            await ixc.weights.merge_lora("none", "made", task="web").wait()
        checked = ixc.weights.merge_lora(SOURCE, "made", task="web", validate_only=True)
        assert await checked.wait() is None


async def test_the_commands(served: Served, capsys: Out) -> None:
    """Merge, list, watch, load, unload, forget; results on standard output alone."""

    def shell(line: str) -> str:
        assert main([*line.split(), "--server", address(served)]) == Exit.OK, line
        return capsys.readouterr().out

    def session() -> None:
        assert shell(f"merge-lora {SOURCE} made --task web") == "models/made\n"
        operation = shell("operations").split("\t")[0]
        assert "succeeded\tdone" in shell("operations")
        assert shell(f"watch {operation}") == shell("watch") == "models/made\n"
        assert shell(f"models --load {SOURCE} --default") == f"models/{SOURCE}\n"
        assert f"models/{SOURCE} (default)\tloaded" in shell("models")
        assert shell(f"operations --delete {operation}") == ""
        assert operation not in shell("operations")

    await blocking(session)


async def test_a_command_that_is_refused(served: Served, capsys: Out) -> None:
    """One line, with the reason, and status 1."""

    def session() -> int:
        return main(["merge-lora", "none", "made", "--task", "web", "--server", address(served)])

    assert await blocking(session) == Exit.FAILED
    captured = capsys.readouterr()
    assert captured.out == "" and "MODEL_NOT_FOUND" in captured.err


def test_working_offline(root: Path, capsys: Out) -> None:
    """The same job without a server; the folder on standard output."""
    arguments = ["merge-lora", SOURCE, "made", "--task", "web", "--models-root", str(root)]
    assert main(arguments) == Exit.OK
    captured = capsys.readouterr()
    assert captured.out == f"{root / 'made'}\n"
    assert "publishing (2/2)" in captured.err
    assert ModelsRoot(root).verify("made").source.name == SOURCE
    assert main(arguments) == Exit.FAILED
    assert "MODEL_ID_TAKEN" in capsys.readouterr().err
    assert main(["models", "--models-root", str(root)]) == Exit.OK
    assert "made\t" in capsys.readouterr().out
    assert list((root / ".ixc-jobs").iterdir()) == []
    onto_itself = ["merge-lora", "made", "made", *arguments[3:], "--overwrite"]
    assert main(onto_itself) == Exit.FAILED
    assert "the source's own name" in capsys.readouterr().err
    assert ModelsRoot(root).verify("made").source.name == SOURCE


def test_offline_leftovers(root: Path, capsys: Out) -> None:
    """Of work that died are cleared at once; of a command that died with it, by the next one,
    which says that it starts anew.
    """
    (root / SOURCE / "die-3").write_text("always")
    arguments = ["merge-lora", SOURCE, "made", "--task", "web", "--models-root", str(root)]
    assert main(arguments) == Exit.FAILED
    assert "WORKER_LOST" in capsys.readouterr().err
    assert list((root / ".ixc-jobs").iterdir()) == []
    (root / SOURCE / "die-3").unlink()
    mark = Mark(job="offline-0", owner="offline", output="made", identity="")
    with ModelsRoot(root).stage(mark) as staging:
        staging.write("a.bin", [b"half of it"])
    assert main(arguments) == Exit.OK
    assert "cleared what 1 interrupted before; this starts anew" in capsys.readouterr().err
    assert list((root / ".ixc-jobs").iterdir()) == []


def test_a_folder_in_the_root_that_is_no_model(
    root: Path, tmp_path: Path, capsys: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Does not stand for `demo`: beside this README `models` holds the demo model's source code."""
    (root / SOURCE).rename(tmp_path / "built")
    (root / "demo" / "drawing").mkdir(parents=True)
    monkeypatch.setattr("ixc_cli.demo_model.build", lambda: tmp_path / "built")
    monkeypatch.setattr("ixc_runtime.jobs.host.WORKER_MODULE", "ixc_runtime.jobs.worker")
    arguments = ["merge-lora", "demo", "made", "--task", "web", "--models-root", str(root)]
    assert main([*arguments, "--validate-only"]) == Exit.OK
    assert "would take up to" in capsys.readouterr().err


def test_stopping_work_offline(root: Path, capsys: Out) -> None:
    """By Ctrl-C: nothing is left, and so it is said. The next command has nothing to clear."""
    (root / SOURCE / "hold-2").touch()

    def interrupt() -> None:
        while not list(root.glob(".ixc-jobs/*/model/config.json")):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    arguments = ["merge-lora", SOURCE, "made", "--task", "web", "--models-root", str(root)]
    assert main(arguments) == Exit.INTERRUPTED
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.endswith("stopped; nothing is left of it\n")
    assert list((root / ".ixc-jobs").iterdir()) == []
    assert not (root / "made").exists()
    (root / SOURCE / "hold-2").unlink()
    assert main(arguments) == Exit.OK
    assert "cleared" not in capsys.readouterr().err


def test_offline_wishes(root: Path, tmp_path: Path, capsys: Out) -> None:
    """That make no sense are usage errors."""
    base = ["merge-lora", SOURCE, "made", "--models-root"]
    for rest in (
        [str(tmp_path / "none"), "--task", "web"],
        [str(root), "--adapter", "cats"],
        [str(root), "--task", "web", "--load"],
        [str(root)],
    ):
        assert main([*base, *rest]) == Exit.USAGE
    assert main(["merge-lora", "/none", "x", "--task", "web", "--models-root", str(root)]) == (
        Exit.USAGE
    )
    assert capsys.readouterr().out == ""
