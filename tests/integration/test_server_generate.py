"""GenerationService through a real server and a fake engine."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration

from ixc.v1 import generation_pb2 as generation
from ixc.v1 import generation_service_pb2 as pb
from ixc.v1.sampling_pb2 import (
    DELIVERY_FINAL_ONLY,
    ON_DISCONNECT_CONTINUE,
    ON_DISCONNECT_GRACE,
    OutputOptions,
    RunPolicy,
    SamplingParams,
)
from ixc_runtime.errors import EngineLost, QueueFull
from tests.fakes.running_server import (
    Served,
    error_info,
    events_of,
    generate_request,
    kinds,
    refused,
    running_server,
    status_of,
    text_of,
)

CODE = grpc.StatusCode


@pytest_asyncio.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with running_server(tmp_path) as running:
        yield running


async def next_event(call):
    return (await call.read()).event


async def cancelled(call, run) -> None:
    """Drops a stream and waits until the server has noticed."""
    call.cancel()
    async with asyncio.timeout(5):
        while run.num_readers:  # noqa: ASYNC110 - the server's own end of the stream has no event
            await asyncio.sleep(0.001)


async def test_a_prompt_is_answered_in_the_documented_order(served: Served) -> None:
    """accepted, prompt_processed, deltas, completed; numbers increase; ids and text agree."""
    events = await served.generate("Hello there")
    assert kinds(events)[:2] == ["accepted", "prompt_processed"]
    assert set(kinds(events)[2:-1]) == {"delta"}
    assert kinds(events)[-1] == "completed"
    numbers = [event.sequence for event in events]
    assert numbers == sorted(set(numbers))
    assert text_of(events) == "You said: Hello there"
    ids = [token for event in events for token in event.delta.token_ids]
    assert bytes(ids).decode() == "You said: Hello there"
    assert events[-1].completed.usage.output_tokens == len(ids)
    assert events[-1].completed.finish_reason == generation.FINISH_REASON_STOP
    assert events[-1].completed.stop_token_id == 0


async def test_accepted_reports_what_holds(served: Served) -> None:
    """Effective sampling with the seed drawn, model, adapter, the prompt's price."""
    events = await served.generate("Hi", sampling=SamplingParams(temperature=0.0))
    accepted = events[0].accepted
    assert accepted.model == "models/fake"
    assert accepted.adapter == "base"
    assert accepted.prompt_tokens == 4
    assert not accepted.deduplicated
    assert accepted.effective_sampling.temperature == 0.0
    assert accepted.effective_sampling.HasField("seed")
    assert accepted.effective_sampling.max_output_tokens == 1024


async def test_initial_metadata_names_the_generation(served: Served) -> None:
    """x-generation and x-instance come with the first event."""
    call = served.generations.Generate(generate_request("Hi"))
    events = await events_of(call)
    metadata = dict(await call.initial_metadata())
    assert metadata["x-generation"] == events[0].accepted.generation
    assert metadata["x-instance"] == served.server.instance


async def test_a_refused_request_has_no_event_and_no_record(served: Served) -> None:
    """Before admission the RPC ends with the fault alone, and no metadata of ours."""
    served.engine.will_say(fault=QueueFull("full", queued=3, limit=3))
    call = served.generations.Generate(generate_request("Hi"))
    with refused("QUEUE_FULL", CODE.RESOURCE_EXHAUSTED) as caught:
        await events_of(call)
    assert dict(error_info(caught[0]).metadata) == {"queued": "3", "limit": "3"}
    assert ("grpc-retry-pushback-ms", "1000") in list(caught[0].trailing_metadata())
    assert "x-generation" not in dict(await call.initial_metadata())
    listed = await served.generations.ListGenerations(pb.ListGenerationsRequest())
    assert not listed.generations


async def test_a_failure_is_told_twice_alike(served: Served) -> None:
    """The last event is `failed`, and its status is the RPC's."""
    served.engine.will_say("one", " two", fault=EngineLost("gone"), fault_at=3)
    call = served.generations.Generate(generate_request("Hi"))
    events = []
    with refused("ENGINE_LOST", CODE.UNAVAILABLE) as caught:
        while True:
            events.append(await next_event(call))
    assert kinds(events)[-1] == "failed"
    assert events[-1].failed.status == status_of(caught[0])
    assert error_info(caught[0]).metadata["instance"] == served.server.instance
    record = await served.generations.GetGeneration(
        pb.GetGenerationRequest(name=events[0].accepted.generation)
    )
    assert record.generation.state == generation.GENERATION_STATE_FAILED
    assert record.generation.error == status_of(caught[0])


async def test_an_unforeseen_exception_shows_only_an_incident(served: Served) -> None:
    """INTERNAL / ENGINE_FAULT, with an id to look up and nothing of the exception's text."""
    served.engine.will_say(fault=ValueError("secret /home/path of a prompt"))
    with refused("ENGINE_FAULT", CODE.INTERNAL) as caught:
        await served.generate("Hi")
    assert error_info(caught[0]).metadata["incident"]
    assert "secret" not in str(status_of(caught[0]))
    assert "secret" not in str(caught[0])


async def test_a_broken_stream_cancels_by_default(served: Served) -> None:
    """Generate's policy is CANCEL: the engine stops, the record says so."""
    served.engine.will_say("a", "b", hold_at=3)
    call = served.generations.Generate(generate_request("Hi"))
    name = (await next_event(call)).accepted.generation
    call.cancel()
    events = await events_of(
        served.generations.WatchGeneration(pb.WatchGenerationRequest(name=name))
    )
    assert events[-1].completed.finish_reason == generation.FINISH_REASON_CANCELLED


@pytest.mark.parametrize(
    "policy",
    [
        RunPolicy(on_disconnect=ON_DISCONNECT_CONTINUE),
        RunPolicy(on_disconnect=ON_DISCONNECT_GRACE, resume_grace=Duration(seconds=100)),
    ],
)
async def test_a_broken_stream_can_be_taken_up(served: Served, policy: RunPolicy) -> None:
    """With CONTINUE, or within GRACE, watching from the last number loses and repeats nothing."""
    served.engine.will_say("one", " two", " three", hold_at=4)
    call = served.generations.Generate(generate_request("Hi", run=policy))
    events = [await next_event(call)]
    while events[-1].sequence < 4:
        events.append(await next_event(call))
    call.cancel()
    served.engine.release.set()
    name = events[0].accepted.generation
    watched = await events_of(
        served.generations.WatchGeneration(
            pb.WatchGenerationRequest(name=name, after_sequence=events[-1].sequence)
        )
    )
    assert text_of(events) + text_of(watched) == "one two three"
    assert watched[-1].completed.finish_reason == generation.FINISH_REASON_STOP


async def test_grace_runs_out(served: Served) -> None:
    """With nobody back in time the generation is cancelled."""
    policy = RunPolicy(on_disconnect=ON_DISCONNECT_GRACE, resume_grace=Duration(nanos=1_000_000))
    served.engine.will_say("a", hold_at=2)
    call = served.generations.Generate(generate_request("Hi", run=policy))
    name = (await next_event(call)).accepted.generation
    call.cancel()
    run = served.server.generations.get("local", name.removeprefix("generations/"))
    await served.server.generations.ended(run)
    assert run.state.value == "cancelled"


async def test_watchers_see_the_same(served: Served) -> None:
    """Any number of readers, each with all the text and one terminal event."""
    served.engine.will_say("one", " two", " three", hold_at=3)
    call = served.generations.Generate(generate_request("Hi"))
    name = (await next_event(call)).accepted.generation
    watchers = [
        asyncio.ensure_future(
            events_of(served.generations.WatchGeneration(pb.WatchGenerationRequest(name=name)))
        )
        for _ in range(5)
    ]
    await asyncio.sleep(0)
    served.engine.release.set()
    for events in [await watcher for watcher in watchers]:
        assert text_of(events) == "one two three"
        assert kinds(events).count("completed") == 1
        assert kinds(events)[-1] == "completed"
    await events_of(call)


async def test_a_watch_at_the_end_gets_the_terminal_event_again(served: Served) -> None:
    """Every watch ends with one, so that a truncated stream can be told."""
    events = await served.generate("Hi")
    name, last = events[0].accepted.generation, events[-1].sequence
    watched = await events_of(
        served.generations.WatchGeneration(
            pb.WatchGenerationRequest(name=name, after_sequence=last)
        )
    )
    assert watched == [events[-1]]
    with refused("FIELD_INVALID", CODE.INVALID_ARGUMENT):
        await events_of(
            served.generations.WatchGeneration(
                pb.WatchGenerationRequest(name=name, after_sequence=last + 1)
            )
        )


async def test_the_same_request_attaches(served: Served) -> None:
    """One run for one request_id; the second stream replays it and says so."""
    first = await served.generate("Hi", request_id="r-1")
    again = await served.generate("Hi", request_id="r-1")
    assert len(served.engine.requests) == 1
    assert again[0].accepted.deduplicated
    assert not first[0].accepted.deduplicated
    assert again[0].accepted.generation == first[0].accepted.generation
    assert text_of(again) == text_of(first)
    resumed = await served.generate("Hi", request_id="r-1", after_sequence=first[1].sequence)
    assert "accepted" not in kinds(resumed)
    assert text_of(resumed) == text_of(first)


async def test_another_request_under_the_same_id_is_refused(served: Served) -> None:
    """ALREADY_EXISTS / REQUEST_ID_REUSED, naming the id."""
    await served.generate("Hi", request_id="r-1")
    with refused("REQUEST_ID_REUSED", CODE.ALREADY_EXISTS) as caught:
        await served.generate("Ho", request_id="r-1")
    assert error_info(caught[0]).metadata["requestId"] == "r-1"


async def test_a_failed_request_runs_anew(served: Served) -> None:
    """After ENGINE_LOST the same id starts afresh, as the contract tells callers to do."""
    served.engine.will_say("a", fault=EngineLost("gone"), fault_at=2)
    with refused("ENGINE_LOST", CODE.UNAVAILABLE):
        await served.generate("Hi", request_id="r-1")
    events = await served.generate("Hi", request_id="r-1")
    assert text_of(events) == "You said: Hi"
    assert not events[0].accepted.deduplicated


@pytest.mark.parametrize("hold_at", range(5))
async def test_cancel_at_every_stage(served: Served, hold_at: int) -> None:
    """CancelGeneration returns the terminal record; watchers see OK and CANCELLED."""
    served.engine.will_say("a", "b", hold_at=hold_at)
    reading = asyncio.ensure_future(served.generate("Hi"))
    await served.engine.was_asked.wait()
    listed = await served.generations.ListGenerations(pb.ListGenerationsRequest())
    name = listed.generations[0].name
    answer = await served.generations.CancelGeneration(pb.CancelGenerationRequest(name=name))
    assert answer.generation.state == generation.GENERATION_STATE_CANCELLED
    events = await reading
    assert kinds(events)[0] == "accepted"
    assert events[-1].completed.finish_reason == generation.FINISH_REASON_CANCELLED
    again = await served.generations.CancelGeneration(pb.CancelGenerationRequest(name=name))
    assert again.generation == answer.generation


async def test_final_only_sends_the_text_once(served: Served) -> None:
    """No deltas; `completed` carries text, ids and log-probabilities."""
    output = OutputOptions(token_ids=True, top_logprobs=2, delivery=DELIVERY_FINAL_ONLY)
    events = await served.generate("Hi", output=output)
    assert kinds(events) == ["accepted", "prompt_processed", "completed"]
    done = events[-1].completed
    assert done.text == "You said: Hi"
    assert bytes(done.token_ids).decode() == done.text
    assert len(done.logprobs) == len(done.token_ids)
    assert len(done.logprobs[0].top) == 2


async def test_ids_are_sent_only_if_asked_for(served: Served) -> None:
    """Without token_ids the counts are there and the ids are not."""
    events = await served.generate("Hi", output=OutputOptions())
    deltas = [event.delta for event in events if event.HasField("delta")]
    assert not any(delta.token_ids for delta in deltas)
    assert sum(delta.token_count for delta in deltas) == len("You said: Hi")


async def test_a_silent_stream_has_heartbeats(tmp_path: Path) -> None:
    """They repeat the last number, and say where the generation stands."""
    async with running_server(tmp_path, heartbeat_interval_seconds=0.01) as served:
        served.engine.will_say("a", hold_at=2)
        call = served.generations.Generate(generate_request("Hi"))
        events = [await next_event(call) for _ in range(4)]
        assert kinds(events) == ["accepted", "prompt_processed", "heartbeat", "heartbeat"]
        assert [event.sequence for event in events] == [1, 2, 2, 2]
        assert events[2].heartbeat.state == generation.GENERATION_STATE_DECODING
        served.engine.release.set()
        assert kinds(await events_of(call))[-1] == "completed"


async def test_deltas_gather_for_the_flush_interval(served: Served) -> None:
    """The first goes out at once; the rest come together, the end waits for nothing."""
    output = OutputOptions(token_ids=True, flush_interval=Duration(seconds=10))
    served.engine.will_say("a", "b", "c", "d", hold_at=3)
    call = served.generations.Generate(generate_request("Hi", output=output))
    events = [await next_event(call) for _ in range(3)]
    assert events[-1].delta.text == "a"
    served.engine.release.set()
    rest = await events_of(call)
    assert [event.delta.text for event in rest if event.HasField("delta")] == ["bcd"]
    assert [event.sequence for event in rest] == [6, 7]


async def test_an_old_cursor(tmp_path: Path) -> None:
    """OUT_OF_RANGE with where to begin, or a snapshot if allowed; from the start all the same."""
    async with running_server(tmp_path, max_event_log_events=4) as served:
        letters = tuple("abcdefghij")
        served.engine.will_say(*letters)
        events = await served.generate("Hi")
        name = events[0].accepted.generation

        def watch(**fields):
            request = pb.WatchGenerationRequest(name=name, **fields)
            return events_of(served.generations.WatchGeneration(request))

        with refused("EVENT_LOG_COMPACTED", CODE.OUT_OF_RANGE) as caught:
            await watch(after_sequence=4)
        first = int(error_info(caught[0]).metadata["firstAvailableSequence"])
        record = await served.generations.GetGeneration(pb.GetGenerationRequest(name=name))
        assert record.generation.first_available_sequence == first
        assert "".join(letters).endswith(text_of(await watch(after_sequence=first - 1)))
        snapshot = (await watch(after_sequence=4, allow_snapshot=True))[0]
        assert snapshot.snapshot.text == "abcdefghij"
        assert snapshot.snapshot.accepted.generation == name
        assert text_of(await watch()) == "abcdefghij"


async def test_lists_come_in_pages_newest_first(served: Served) -> None:
    """Every generation once, filters held to by the token."""
    names = []
    for number in range(5):
        served.clock.wall += 1
        names.append((await served.generate(f"Hi {number}"))[0].accepted.generation)
    found, token = [], ""
    while True:
        request = pb.ListGenerationsRequest(page_size=2, page_token=token)
        page = await served.generations.ListGenerations(request)
        found += [each.name for each in page.generations]
        assert not any(each.text for each in page.generations)
        token = page.next_page_token
        if not token:
            break
    assert found == names[::-1]
    running = pb.ListGenerationsRequest(states=[generation.GENERATION_STATE_DECODING])
    assert not (await served.generations.ListGenerations(running)).generations
    token = (
        await served.generations.ListGenerations(pb.ListGenerationsRequest(page_size=1))
    ).next_page_token
    for bad in ("!", token[:-1], "AAAA"):
        with refused("FIELD_INVALID", CODE.INVALID_ARGUMENT):
            await served.generations.ListGenerations(pb.ListGenerationsRequest(page_token=bad))
    with refused("FIELD_INVALID", CODE.INVALID_ARGUMENT):
        await served.generations.ListGenerations(
            pb.ListGenerationsRequest(page_token=token, session="sessions/other")
        )


async def test_ended_generations_are_forgotten(served: Served) -> None:
    """After the retention they are unknown, and their request_id is free again."""
    events = await served.generate("Hi", request_id="r-1")
    served.clock.wall += 601
    await served.server.housekeeping.sweep()
    with refused("GENERATION_NOT_FOUND", CODE.NOT_FOUND):
        await served.generations.GetGeneration(
            pb.GetGenerationRequest(name=events[0].accepted.generation)
        )
    assert not (await served.generate("Ho", request_id="r-1"))[0].accepted.deduplicated


async def test_too_many_detached_generations(tmp_path: Path) -> None:
    """Beyond the limit CONTINUE acts as CANCEL."""
    async with running_server(tmp_path, max_detached_generations=1) as served:
        policy = RunPolicy(on_disconnect=ON_DISCONNECT_CONTINUE)
        runs = []
        for _ in range(2):
            served.engine.will_say("a", hold_at=2)
            call = served.generations.Generate(generate_request("Hi", run=policy))
            name = (await next_event(call)).accepted.generation
            runs.append(served.server.generations.get("local", name.partition("/")[2]))
            await cancelled(call, runs[-1])
        await served.server.generations.ended(runs[1])
        assert [run.state.value for run in runs] == ["decoding", "cancelled"]
