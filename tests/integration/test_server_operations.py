"""Operations over a real server: exactly once, followed, stopped, taken up after a restart.

The jobs are real processes that stage and publish real files, but do no arithmetic.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import msgspec
import pytest

from ixc.v1 import operation_pb2
from ixc.v1.operation_service_pb2 import (
    CancelOperationRequest,
    DeleteOperationRequest,
    ListOperationsRequest,
    WatchOperationRequest,
)
from ixc.v1.weights_service_pb2 import MergeLoraRequest
from ixc_runtime.models_root import ModelsRoot
from ixc_service.operations.records import Kind, LoadOrder
from ixc_service.store import LOCAL_OWNER, Database
from ixc_service.store.operations import OperationStore
from tests.fakes.long_work import (
    events_of,
    get,
    kinds,
    merging,
    quantising,
    until,
    until_true,
    watching,
)
from tests.fakes.running_server import Served, error_info, running_server
from tests.fakes.tiny_models_root import SOURCE, tree, write_models_root


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("ixc_runtime.jobs.host.WORKER_MODULE", "tests.fakes.synthetic_job")
    return write_models_root(tmp_path / "models")


@pytest.fixture
async def served(tmp_path: Path, root: Path) -> AsyncIterator[Served]:
    async with running_server(tmp_path, models_root=root) as server:
        yield server


def hold(root: Path, step: str) -> Path:
    """The job waits before this step until the file is gone."""
    path = root / SOURCE / f"hold-{step}"
    path.touch()
    return path


async def test_closing_the_stream_changes_nothing(served: Served, root: Path) -> None:
    """The work belongs to the server; a second call under the same id follows it."""
    held = hold(root, "2")
    call = served.weights.MergeLora(merging(request_id="m-1"))
    accepted = await until(call, "accepted")
    call.cancel()
    held.unlink()
    events = await events_of(served.weights.MergeLora(merging(request_id="m-1")))
    assert events[0].accepted.deduplicated
    assert events[0].accepted.operation.name == accepted.accepted.operation.name
    assert kinds(events)[-1] == "completed"
    assert (root / "tiny-web").is_dir()


async def test_a_request_id_means_one_request(served: Served) -> None:
    """Another request under it is refused."""
    await events_of(served.weights.MergeLora(merging(request_id="m-1")))
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await events_of(served.weights.MergeLora(merging("other", request_id="m-1")))
    assert error_info(raised.value).reason == "REQUEST_ID_REUSED"


async def test_two_jobs_for_one_name(served: Served, root: Path) -> None:
    """One wins; the other is told of it, by its name."""
    held = hold(root, "1")
    first = served.weights.MergeLora(merging())
    accepted = await until(first, "accepted")
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await events_of(served.weights.Quantize(quantising("tiny-web")))
    info = error_info(raised.value)
    assert info.reason == "OPERATION_CONFLICT"
    assert info.metadata["operation"] == accepted.accepted.operation.name
    held.unlink()
    await events_of(first)


async def test_jobs_run_one_at_a_time(served: Served, root: Path) -> None:
    """The second waits in the queue and says so; both end."""
    held = hold(root, "1")
    first = served.weights.MergeLora(merging("one"))
    await until(first, "accepted")
    second = served.weights.MergeLora(merging("two"))
    accepted = await until(second, "accepted")
    assert accepted.accepted.queue_position == 1
    waiting = await get(served, accepted.accepted.operation.name)
    assert waiting.state == operation_pb2.OPERATION_STATE_QUEUED
    held.unlink()
    assert kinds(await events_of(first))[-1] == "completed"
    assert kinds(await events_of(second))[-1] == "completed"


async def test_cancelling_one_that_waits(served: Served, root: Path) -> None:
    """It ends without having begun."""
    held = hold(root, "1")
    first = served.weights.MergeLora(merging("one"))
    await until(first, "accepted")
    second = served.weights.MergeLora(merging("two"))
    name = (await until(second, "accepted")).accepted.operation.name
    response = await served.operations.CancelOperation(CancelOperationRequest(name=name))
    assert response.operation.state == operation_pb2.OPERATION_STATE_CANCELLED
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await events_of(second)
    assert raised.value.code() == grpc.StatusCode.CANCELLED
    assert error_info(raised.value).reason == "OPERATION_CANCELLED"
    held.unlink()
    await events_of(first)
    assert not (root / "two").exists()


@pytest.mark.parametrize("step", ["start", "1", "2", "3", "publish", "told"])
async def test_cancelling_at_a_step(served: Served, root: Path, step: str) -> None:
    """Whatever it was doing: it ends within seconds and leaves nothing. Too late for that, the
    model stays, whole.
    """
    before = tree(root)
    held = hold(root, step)
    call = served.weights.MergeLora(merging())
    name = (await until(call, "accepted")).accepted.operation.name
    if step == "told":
        await until(watching(served, name), "progress")
        await until_true((root / "tiny-web").exists)
    response = await served.operations.CancelOperation(CancelOperationRequest(name=name))
    assert response.operation.done and response.operation.cancel_requested
    held.unlink()
    assert list((root / ".ixc-jobs").glob("*")) == []
    if step == "told":
        assert response.operation.state == operation_pb2.OPERATION_STATE_SUCCEEDED
        assert await asyncio.to_thread(ModelsRoot(root).verify, "tiny-web")
    else:
        assert response.operation.state == operation_pb2.OPERATION_STATE_CANCELLED
        assert tree(root) == before


async def test_a_job_that_does_not_listen(
    served: Served, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Is killed after a grace period."""
    monkeypatch.setattr("ixc_runtime.jobs.host._CANCEL_SECONDS", 0.2)
    deaf = root / SOURCE / "deaf"
    deaf.touch()
    call = served.weights.MergeLora(merging())
    name = (await until(call, "metric")) and (await newest(served)).name
    response = await served.operations.CancelOperation(CancelOperationRequest(name=name))
    assert response.operation.state == operation_pb2.OPERATION_STATE_CANCELLED
    assert list((root / ".ixc-jobs").iterdir()) == []


async def test_cancelling_twice_or_too_late(served: Served) -> None:
    """Is no error, and changes nothing."""
    events = await events_of(served.weights.MergeLora(merging()))
    name = events[0].accepted.operation.name
    for _ in range(2):
        response = await served.operations.CancelOperation(CancelOperationRequest(name=name))
        assert response.operation.state == operation_pb2.OPERATION_STATE_SUCCEEDED


async def test_validating_only(served: Served, root: Path) -> None:
    """Everything is checked, what it would take is told, and nothing is done."""
    before = tree(root)
    events = await events_of(served.weights.MergeLora(merging(validate_only=True)))
    assert kinds(events) == ["accepted", "completed"]
    assert events[0].accepted.operation.name == ""
    assert events[0].accepted.required_bytes > 100_000
    assert tree(root) == before
    listed = await served.operations.ListOperations(ListOperationsRequest())
    assert list(listed.operations) == []


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (merging(task="sing"), "FIELD_INVALID"),
        (merging(adapter="adapters/cats"), "FEATURE_DISABLED"),
        (merging(adapter="adapters/../cats"), "FIELD_INVALID"),
        (merging("../escape"), "FIELD_INVALID"),
        (merging(SOURCE), "FIELD_INVALID"),
        (merging("Upper"), "FIELD_INVALID"),
        (merging("taken"), "MODEL_ID_TAKEN"),
        (merging("taken", overwrite=True), "MODEL_ID_TAKEN"),
        (MergeLoraRequest(model="models/none", task="web", output_model_id="x"), "MODEL_NOT_FOUND"),
        (MergeLoraRequest(model="models/..", task="web", output_model_id="x"), "MODEL_NOT_FOUND"),
        (MergeLoraRequest(model=f"models/{SOURCE}", output_model_id="x"), "FIELD_INVALID"),
    ],
)
async def test_a_request_that_cannot_work(
    served: Served, root: Path, request_: MergeLoraRequest, reason: str
) -> None:
    """Is refused at once, with its reason, and is no operation."""
    (root / "taken").mkdir()
    (root / "taken" / "notes.txt").write_text("mine")
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await events_of(served.weights.MergeLora(request_))
    assert error_info(raised.value).reason == reason
    listed = await served.operations.ListOperations(ListOperationsRequest())
    assert list(listed.operations) == []
    assert (root / "taken" / "notes.txt").read_text() == "mine"


async def test_watching_from_a_cursor(served: Served) -> None:
    """Only what comes after it; at the end, the terminal event once more."""
    events = await events_of(served.weights.MergeLora(merging()))
    name, last = events[0].accepted.operation.name, events[-1].sequence
    whole = await events_of(served.operations.WatchOperation(WatchOperationRequest(name=name)))
    assert kinds(whole)[0] == "accepted" and whole[-1] == events[-1]
    for cursor in (last - 1, last):
        request = WatchOperationRequest(name=name, after_sequence=cursor)
        assert await events_of(served.operations.WatchOperation(request)) == [events[-1]]
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        request = WatchOperationRequest(name=name, after_sequence=last + 1)
        await events_of(served.operations.WatchOperation(request))
    assert error_info(raised.value).reason == "FIELD_INVALID"


async def test_operations_are_listed_and_forgotten(served: Served, root: Path) -> None:
    """Newest first, in pages, by kind and state; one that runs is not deleted."""
    for number in range(3):
        served.clock.wall += 1  # names are ordered by time
        await events_of(served.weights.MergeLora(merging(f"m{number}")))
    served.clock.wall += 1
    first = await served.operations.ListOperations(ListOperationsRequest(page_size=2))
    rest = await served.operations.ListOperations(
        ListOperationsRequest(page_size=2, page_token=first.next_page_token)
    )
    outputs = [each.output_model for each in (*first.operations, *rest.operations)]
    assert outputs == ["models/m2", "models/m1", "models/m0"] and rest.next_page_token == ""
    none = await served.operations.ListOperations(
        ListOperationsRequest(kinds=[operation_pb2.OPERATION_KIND_QUANTIZE])
    )
    assert list(none.operations) == []
    held = hold(root, "1")
    call = served.weights.MergeLora(merging())
    running = (await until(call, "accepted")).accepted.operation.name
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await served.operations.DeleteOperation(DeleteOperationRequest(name=running))
    assert error_info(raised.value).reason == "OPERATION_RUNNING"
    held.unlink()
    await events_of(call)
    await served.operations.DeleteOperation(DeleteOperationRequest(name=running))
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await get(served, running)
    assert error_info(raised.value).reason == "OPERATION_NOT_FOUND"
    again = DeleteOperationRequest(name=running, allow_missing=True)
    await served.operations.DeleteOperation(again)


async def test_a_server_without_a_models_root(tmp_path: Path) -> None:
    """Says that it does not do this."""
    async with running_server(tmp_path) as served:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await events_of(served.weights.MergeLora(merging()))
        assert error_info(raised.value).reason == "FEATURE_DISABLED"


async def newest(served: Served) -> operation_pb2.Operation:
    response = await served.operations.ListOperations(ListOperationsRequest(page_size=1))
    operation: operation_pb2.Operation = response.operations[0]
    return operation


# ---- interruptions


@pytest.mark.parametrize(("step", "kept"), [("1", 0), ("2", 1), ("3", 2), ("publish", 3)])
async def test_a_restart_of_the_server(tmp_path: Path, root: Path, step: str, kept: int) -> None:
    """The operation goes on from its last finished file, and says so; cursors stay right."""
    held = hold(root, step)
    async with running_server(tmp_path, models_root=root) as served:
        call = served.weights.MergeLora(merging(request_id="m-1"))
        first = await until(call, "accepted" if kept == 0 else "metric")
        name = (await newest(served)).name
        await until_true(lambda: len(staged(root, name)) >= kept)
        last = (await get(served, name)).last_sequence
    held.unlink()
    async with running_server(tmp_path, models_root=root) as served:
        events = await events_of(watching(served, name, last))
        assert all(event.sequence > last >= first.sequence for event in events)
        (restarted,) = [event.restarted for event in events if event.HasField("restarted")]
        assert (restarted.attempt, restarted.resumed) == (2, kept > 0)
        assert restarted.kept_files == kept
        assert kinds(events)[-1] == "completed"
        again = await events_of(served.weights.MergeLora(merging(request_id="m-1")))
        assert again[0].accepted.deduplicated and again[-1] == events[-1]
        assert (await get(served, name)).attempt == 2
    assert ModelsRoot(root).verify("tiny-web").job == name.partition("/")[2]
    assert list((root / ".ixc-jobs").iterdir()) == []


def staged(root: Path, name: str) -> list[bytes]:
    """The files that a job has finished, by its journal."""
    journal = root / ".ixc-jobs" / name.partition("/")[2] / "journal"
    return journal.read_bytes().splitlines() if journal.exists() else []


async def test_a_restart_just_after_the_publication(tmp_path: Path, root: Path) -> None:
    """What was published is found and told of; nothing is done twice."""
    held = hold(root, "told")
    async with running_server(tmp_path, models_root=root) as served:
        await until(served.weights.MergeLora(merging()), "metric")
        name = (await newest(served)).name
        await until_true((root / "tiny-web").exists)
    held.unlink()
    made = (root / "tiny-web" / "ixc-manifest.json").read_bytes()
    async with running_server(tmp_path, models_root=root) as served:
        events = await events_of(watching(served, name))
        assert kinds(events)[-1] == "completed"
    assert (root / "tiny-web" / "ixc-manifest.json").read_bytes() == made
    assert list((root / ".ixc-jobs").iterdir()) == []


async def test_a_restart_with_others_in_the_queue(tmp_path: Path, root: Path) -> None:
    """All are done, in their order, but for one that was being cancelled."""
    held = hold(root, "2")
    names = []
    async with running_server(tmp_path, models_root=root) as served:
        for number in range(3):
            served.clock.wall += 1
            call = served.weights.MergeLora(merging(f"m{number}"))
            names.append((await until(call, "accepted")).accepted.operation.name)
    held.unlink()
    await ask_to_cancel(tmp_path, names[1])
    async with running_server(tmp_path, models_root=root) as served:
        for name in (names[0], names[2]):
            assert kinds(await events_of(watching(served, name)))[-1] == "completed"
        operations = [await get(served, name) for name in names]
        assert [operation.attempt for operation in operations] == [2, 1, 1]
        assert operations[1].state == operation_pb2.OPERATION_STATE_CANCELLED
    assert not (root / "m1").exists()


async def ask_to_cancel(folder: Path, name: str) -> None:
    """As far as a server came that died before it could do it."""
    database = await Database.open(folder / "data" / "sessions.sqlite3")
    store = OperationStore(database)
    record = await store.get(LOCAL_OWNER, name.partition("/")[2])
    await store.update(msgspec.structs.replace(record, is_cancel_requested=True))
    await database.close()


async def test_a_caller_who_is_gone_while_it_is_accepted(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was written down is done all the same, and not only after the next start."""
    operations, written = served.server.long_work.operations, asyncio.Event()
    may_return, add = asyncio.Event(), OperationStore.add

    async def slow(*arguments: Any) -> None:
        await add(*arguments)
        written.set()
        await may_return.wait()

    monkeypatch.setattr(OperationStore, "add", slow)
    order = LoadOrder(model_id=SOURCE)
    beginning = asyncio.create_task(
        operations.begin(None, owner=LOCAL_OWNER, kind=Kind.LOAD_MODEL, order=order)
    )
    await written.wait()
    beginning.cancel()
    may_return.set()
    await asyncio.wait({beginning})
    async with asyncio.timeout(20):
        events = await events_of(watching(served, (await newest(served)).name))
    assert kinds(events)[-1] == "completed"


async def test_a_server_that_stops_under_a_stream(tmp_path: Path, root: Path) -> None:
    """The stream is told, and ends without a terminal event: the operation is not over."""
    hold(root, "2")
    async with running_server(tmp_path, models_root=root) as served:
        call = served.weights.MergeLora(merging())
        await until(call, "accepted")
        name = (await newest(served)).name
        watch = watching(served, name)
        await until(watch, "accepted")
        stopping = asyncio.create_task(served.server.stop(0.2))
        seen = []
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            async for response in watch:
                seen.append(response.event.WhichOneof("event"))  # noqa: PERF401
        await stopping
    assert "draining" in seen and not {"completed", "failed"} & set(seen)
    assert error_info(raised.value).reason == "SERVER_DRAINING"


async def test_a_job_whose_process_dies(served: Served, root: Path) -> None:
    """Is begun again, and takes over what was finished."""
    (root / SOURCE / "die-3").touch()
    events = await events_of(served.weights.MergeLora(merging()))
    (restarted,) = [event.restarted for event in events if event.HasField("restarted")]
    assert (restarted.attempt, restarted.resumed, restarted.kept_files) == (2, True, 2)
    assert kinds(events)[-1] == "completed"


async def test_a_job_whose_process_dies_each_time(served: Served, root: Path) -> None:
    """Is given up after the third, and leaves nothing."""
    (root / SOURCE / "die-2").write_text("always")
    before = tree(root)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await events_of(served.weights.MergeLora(merging()))
    info = error_info(raised.value)
    assert (info.reason, info.metadata["attempts"]) == ("WORKER_LOST", "3")
    assert tree(root) == before


async def test_a_full_queue(tmp_path: Path, root: Path) -> None:
    """Refuses at once, with its depth."""
    held = hold(root, "1")
    async with running_server(tmp_path, models_root=root, max_queued_operations=1) as served:
        calls = [served.weights.MergeLora(merging(f"m{number}")) for number in range(2)]
        for call in calls:
            await until(call, "accepted")
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await events_of(served.weights.MergeLora(merging("m2")))
        assert error_info(raised.value).reason == "QUEUE_FULL"
        held.unlink()
        for call in calls:
            assert kinds(await events_of(call))[-1] == "completed"


async def test_two_jobs_at_a_time(tmp_path: Path, root: Path) -> None:
    """Where the operator says so."""
    held = hold(root, "2")
    async with running_server(tmp_path, models_root=root, max_running_jobs=2) as served:
        calls = [served.weights.MergeLora(merging(f"m{number}")) for number in range(2)]
        for call in calls:
            await until(call, "metric")
        held.unlink()
        for call in calls:
            await events_of(call)


async def test_records_are_forgotten_in_time(served: Served) -> None:
    """With their events and request ids; what they published stays."""
    request = merging(request_id="m-1", overwrite=True)
    await events_of(served.weights.MergeLora(request))
    name = (await newest(served)).name
    served.clock.wall += 31 * 86_400
    await served.server.housekeeping.sweep()
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await get(served, name)
    assert error_info(raised.value).reason == "OPERATION_NOT_FOUND"
    events = await events_of(served.weights.MergeLora(request))
    assert not events[0].accepted.deduplicated


async def test_a_silent_stream(tmp_path: Path, root: Path) -> None:
    """Is kept alive by heartbeats, which do not move the cursor."""
    held = hold(root, "1")
    async with running_server(
        tmp_path, models_root=root, heartbeat_interval_seconds=0.05
    ) as served:
        call = served.weights.MergeLora(merging())
        beat = await until(call, "heartbeat")
        assert beat.heartbeat.state == operation_pb2.OPERATION_STATE_RUNNING
        held.unlink()
        assert kinds(await events_of(call))[-1] == "completed"


async def test_many_watchers(served: Served, root: Path) -> None:
    """All see the same events; one that comes late sees them from the start."""
    held = hold(root, "3")
    call = served.weights.MergeLora(merging())
    await until(call, "metric")
    name = (await newest(served)).name
    watchers = [asyncio.create_task(events_of(watching(served, name))) for _ in range(5)]
    held.unlink()
    logs = await asyncio.gather(*watchers)
    for log in logs:
        assert kinds(log)[0] == "accepted" and log[-1] == logs[0][-1]
        metrics = [event.metric.layer for event in log if event.HasField("metric")]
        assert metrics == ["config.json", "a.bin", "b.bin"]
