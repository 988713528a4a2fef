"""What the server says of itself: models, limits, tokens, health, reflection, errors, its end."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from ixc.v1 import generation_service_pb2 as generation_pb
from ixc.v1 import model_pb2
from ixc.v1 import model_service_pb2 as model_service
from ixc.v1 import token_service_pb2 as token_service
from ixc.v1.content_pb2 import Content, ContentList, ImagePart, Part, Prompt, Role, TokenPrompt
from ixc_service.server import SERVICES
from tests.fakes.running_server import (
    PNG,
    Served,
    events_of,
    generate_request,
    kinds,
    refused,
    running_server,
    text_of,
    text_prompt,
    violations_of,
)

CODE = grpc.StatusCode
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


@pytest_asyncio.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with running_server(tmp_path) as running:
        yield running


# ---- models


async def test_the_model_describes_itself(served: Served) -> None:
    """By name or as the default; an unknown one is NOT_FOUND, a malformed name INVALID."""
    model = (await served.models.GetModel(model_service.GetModelRequest())).model
    assert model.name == "models/fake"
    assert list(model.adapters) == ["web"]
    assert model.image_input.hd_num_max == 9
    assert model.system_presets[0].text
    listed = await served.models.ListModels(model_service.ListModelsRequest())
    assert list(listed.models) == [model]
    with refused("MODEL_NOT_FOUND", CODE.NOT_FOUND):
        await served.models.GetModel(model_service.GetModelRequest(name="models/other"))
    with refused("FIELD_INVALID", CODE.INVALID_ARGUMENT):
        await served.models.GetModel(model_service.GetModelRequest(name="other"))


async def test_limits_are_those_in_force(tmp_path: Path) -> None:
    """What GetServerInfo says is what is applied, the changed ones too."""
    async with running_server(tmp_path, max_images=3, max_hd_num=5) as served:
        server = (await served.models.GetServerInfo(model_service.GetServerInfoRequest())).server
        assert server.instance == served.server.instance
        assert server.limits.max_images == 3
        assert server.limits.max_hd_num == 5
        assert server.limits.context_limit == 4096
        assert server.limits.heartbeat_interval.seconds == 10
        assert server.limits.max_queued_generations == 32
        for field, value in server.limits.ListFields():
            assert value, field.name
        assert len(server.limits.ListFields()) == len(server.limits.DESCRIPTOR.fields)
        assert server.plan.tokens_capacity == 256 * 16
        assert model_pb2.CAPABILITY_IMAGE_INPUT in server.capabilities


async def test_load_tells_the_state(served: Served) -> None:
    """Serving, engine down, draining; sessions and detached generations are counted."""
    ask = model_service.GetLoadRequest()
    await served.new_session()
    load = (await served.models.GetLoad(ask)).load
    assert (load.state, load.sessions) == (model_pb2.SERVER_STATE_SERVING, 1)
    served.engine.die()
    load = (await served.models.GetLoad(ask)).load
    assert load.state == model_pb2.SERVER_STATE_ENGINE_DOWN
    served.engine.come_back()
    served.server.refuse_new_work(5.0)
    load = (await served.models.GetLoad(ask)).load
    assert load.state == model_pb2.SERVER_STATE_DRAINING


# ---- tokens


async def test_counting_agrees_with_accepted(served: Served) -> None:
    """The same figure as the generation's; pictures one by one."""
    picture = Part(image=ImagePart(inline_data=PNG))
    content = Content(role=Role.ROLE_USER, parts=[picture, Part(text="Look"), picture])
    prompt = Prompt(contents=ContentList(contents=[content]))
    count = await served.tokens.CountTokens(token_service.CountTokensRequest(prompt=prompt))
    request = generation_pb.GenerateRequest(prompt=prompt)
    accepted = (await events_of(served.generations.Generate(request)))[0].accepted
    assert count.total_tokens == accepted.prompt_tokens
    assert count.image_tokens == accepted.image_tokens == 20
    assert [image.tokens for image in count.images] == [10, 10]
    assert (count.images[0].width, count.images[0].height) == (64, 32)
    assert count.context_limit == 4096


async def test_counting_the_next_turn(served: Served) -> None:
    """With a session its history counts, its pictures are not listed again."""
    session = await served.new_session()
    await served.chat(session, "Look", image=PNG)
    request = token_service.CountTokensRequest(prompt=text_prompt("And?"), session=session)
    count = await served.tokens.CountTokens(request)
    events = await served.chat(session, "And?")
    assert count.total_tokens == events[0].accepted.prompt_tokens
    assert not count.images


async def test_text_to_ids_and_back(served: Served) -> None:
    """Tokenize and Detokenize are each other's inverse; foreign ids are refused."""
    answer = await served.tokens.Tokenize(token_service.TokenizeRequest(text="héllo"))
    back = await served.tokens.Detokenize(
        token_service.DetokenizeRequest(token_ids=answer.token_ids)
    )
    assert back.text == "héllo"
    with refused("TOKEN_ID_OUT_OF_VOCAB", CODE.INVALID_ARGUMENT):
        await served.tokens.Detokenize(token_service.DetokenizeRequest(token_ids=[256]))


# ---- what is wrong is said


async def test_all_violations_come_at_once(served: Served) -> None:
    """BadRequest names every field, in one answer."""
    request = generate_request("Hi", request_id="not ok!", after_sequence=-1)
    request.sampling.top_p = 7.0
    request.sampling.temperature = float("nan")
    request.run.on_disconnect = 99  # type: ignore[assignment]
    request.output.top_logprobs = 21
    with refused("FIELD_INVALID", CODE.INVALID_ARGUMENT) as caught:
        await events_of(served.generations.Generate(request))
    assert violations_of(caught[0]) == {
        "request_id",
        "after_sequence",
        "sampling.top_p",
        "sampling.temperature",
        "run.on_disconnect",
        "output.top_logprobs",
    }


async def test_a_request_with_a_thousand_faults_fits_in_4_kib(served: Served) -> None:
    """Details are shortened, for larger ones would hide the code itself."""
    request = generate_request("Hi")
    request.sampling.stop_sequences.extend(["x" * 300] * 1000)
    with refused("FIELD_INVALID", CODE.INVALID_ARGUMENT) as caught:
        await events_of(served.generations.Generate(request))
    details = dict(caught[0].trailing_metadata())["grpc-status-details-bin"]
    assert 1000 < len(details) <= 4096


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        (Prompt(), "PROMPT_EMPTY"),
        (Prompt(contents=ContentList()), "PROMPT_EMPTY"),
        (text_prompt(""), "PROMPT_EMPTY"),
        (Prompt(tokens=TokenPrompt()), "PROMPT_EMPTY"),
        (Prompt(tokens=TokenPrompt(token_ids=[1, 256])), "TOKEN_ID_OUT_OF_VOCAB"),
    ],
)
async def test_prompts_that_cannot_be(served: Served, prompt: Prompt, reason: str) -> None:
    """Each for its own reason."""
    with refused(reason, CODE.INVALID_ARGUMENT):
        await events_of(served.generations.Generate(generation_pb.GenerateRequest(prompt=prompt)))


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (ImagePart(inline_data=b"<svg>"), "MEDIA_TYPE_UNSUPPORTED"),
        (ImagePart(inline_data=PNG, mime_type="image/jpeg"), "MEDIA_TYPE_UNSUPPORTED"),
        (ImagePart(), "FIELD_INVALID"),
        (ImagePart(inline_data=PNG, hd_num=0), "FIELD_INVALID"),
        (ImagePart(inline_data=PNG, hd_num=10), "FIELD_INVALID"),
        (ImagePart(inline_data=PNG, label="two\nlines"), "FIELD_INVALID"),
    ],
)
async def test_pictures_that_cannot_be(served: Served, image: ImagePart, reason: str) -> None:
    """Refused before a byte of them is stored or decoded."""
    content = Content(role=Role.ROLE_USER, parts=[Part(image=image)])
    prompt = Prompt(contents=ContentList(contents=[content]))
    with refused(reason, CODE.INVALID_ARGUMENT):
        await events_of(served.generations.Generate(generation_pb.GenerateRequest(prompt=prompt)))
    assert not list((served.folder / "data" / "media").iterdir())


async def test_an_adapter_that_is_not_there(served: Served) -> None:
    """FAILED_PRECONDITION / ADAPTER_UNAVAILABLE; the one that is there is used."""
    with refused("ADAPTER_UNAVAILABLE", CODE.FAILED_PRECONDITION):
        await served.generate("Hi", adapter="write")
    assert (await served.generate("Hi", adapter="web"))[0].accepted.adapter == "web"


async def test_a_prompt_too_long(served: Served) -> None:
    """OUT_OF_RANGE / CONTEXT_OVERFLOW."""
    with refused("CONTEXT_OVERFLOW", CODE.OUT_OF_RANGE):
        await served.generate("x" * 5000)


async def test_bytes_that_are_no_message(served: Served) -> None:
    """The caller's fault, never INTERNAL: proxies would take the server for sick."""
    for method, streams in (("Generate", True), ("GetGeneration", False)):
        path = f"/ixc.v1.GenerationService/{method}"
        make = served.channel.unary_stream if streams else served.channel.unary_unary
        call = make(path)(b"\xff\xff\xff")
        with refused("FIELD_INVALID", CODE.INVALID_ARGUMENT):
            await (call.read() if streams else call)


async def test_a_message_too_large(served: Served) -> None:
    """The library answers by itself, within the limit GetServerInfo tells."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.tokens.Tokenize(token_service.TokenizeRequest(text="x" * (5 << 20)))
    assert caught.value.code() == CODE.RESOURCE_EXHAUSTED


# ---- health and reflection


async def check(served: Served, service: str) -> int:
    answer = await served.health.Check(health_pb2.HealthCheckRequest(service=service))
    return int(answer.status)


async def test_watch_pushes_every_change(served: Served) -> None:
    """A true Watch: the engine's death and return, then the drain."""
    call = served.health.Watch(health_pb2.HealthCheckRequest(service="readiness"))
    assert (await call.read()).status == SERVING
    served.engine.die()
    assert (await call.read()).status == NOT_SERVING
    assert await check(served, "") == SERVING
    assert await check(served, "ixc.v1.ChatService") == NOT_SERVING
    assert await check(served, "ixc.v1.SessionService") == SERVING
    served.engine.come_back()
    assert (await call.read()).status == SERVING
    served.server.health.drain()
    assert (await call.read()).status == NOT_SERVING
    assert await check(served, "") == NOT_SERVING
    assert await check(served, "liveness") == SERVING


async def test_health_lists_and_knows_its_services(served: Served) -> None:
    """Unknown ones are NOT_FOUND on Check, SERVICE_UNKNOWN on Watch."""
    listed = await served.health.List(health_pb2.HealthListRequest())
    ours = {"", "liveness", "readiness", "models/fake"}
    assert {*SERVICES[:-1], *ours} == set(listed.statuses)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await check(served, "nobody")
    assert caught.value.code() == CODE.NOT_FOUND
    call = served.health.Watch(health_pb2.HealthCheckRequest(service="nobody"))
    assert (await call.read()).status == UNKNOWN
    call.cancel()


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_lists_our_services(served: Served, version: str) -> None:
    """Both versions; a service can be described by its name."""
    call = served.channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )()
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    listed = (await call.read()).list_services_response.service
    assert set(SERVICES) <= {service.name for service in listed}
    await call.write(
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="ixc.v1.ChatService")
    )
    assert (await call.read()).file_descriptor_response.file_descriptor_proto
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF


# ---- options and the end


async def test_many_pings_are_suffered(tmp_path: Path) -> None:
    """A client that pings a silent stream often is not cut off: the options' keys are right."""
    async with running_server(tmp_path, listen="127.0.0.1:0") as served:
        options = [
            ("grpc.keepalive_time_ms", 50),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.http2.min_sent_ping_interval_without_data_ms", 50),
            ("grpc.keepalive_permit_without_calls", 1),
        ]
        channel = grpc.aio.insecure_channel(served.server.addresses[0], options=options)
        async with channel:
            served.engine.will_say("a", hold_at=2)
            call = channel.unary_stream(
                "/ixc.v1.GenerationService/Generate",
                request_serializer=generation_pb.GenerateRequest.SerializeToString,
                response_deserializer=generation_pb.GenerateResponse.FromString,
            )(generate_request("Hi"))
            await call.read()
            await call.read()
            await asyncio.sleep(1.0)  # twenty pings, where the default suffers two
            served.engine.release.set()
            assert kinds(await events_of(call))[-1] == "completed"


async def test_a_drain_finishes_what_runs(served: Served) -> None:
    """Open streams are told and end well; new work is refused; reads are answered."""
    served.engine.will_say("a", " b", hold_at=3)
    call = served.generations.Generate(generate_request("Hi"))
    events = [(await call.read()).event for _ in range(3)]
    stopping = asyncio.ensure_future(served.server.stop(30.0))
    events.append((await call.read()).event)
    assert kinds(events)[-1] == "draining"
    assert events[-1].draining.time_left.seconds in {29, 30}
    assert events[-1].sequence == 3
    with refused("SERVER_DRAINING", CODE.UNAVAILABLE) as caught:
        await served.generate("me too")
    assert ("grpc-retry-pushback-ms", "0") in list(caught[0].trailing_metadata())
    await served.models.GetLoad(model_service.GetLoadRequest())
    served.engine.release.set()
    assert kinds(await events_of(call))[-1] == "completed"
    await stopping


async def test_what_outlasts_the_grace_fails(served: Served) -> None:
    """With SERVER_DRAINING in its log and on its stream."""
    served.engine.will_say("a", hold_at=2)
    call = served.generations.Generate(generate_request("Hi"))
    await call.read()
    await call.read()
    stopping = asyncio.ensure_future(served.server.stop(0.0))
    events = []
    with refused("SERVER_DRAINING", CODE.UNAVAILABLE), contextlib.suppress(StopAsyncIteration):
        while True:
            events.append((await call.read()).event)
    assert kinds(events)[-1] == "failed"
    await stopping


async def test_a_slow_reader_is_dropped(tmp_path: Path) -> None:
    """ABORTED / SLOW_CONSUMER once a write takes too long; the generation is untouched."""
    limits = {"slow_consumer_timeout_seconds": 0.2, "max_event_log_bytes": 1 << 30}
    small_window = [("grpc.http2.lookahead_bytes", 1024), ("grpc.http2.bdp_probe", 0)]
    async with (
        running_server(tmp_path, **limits) as served,
        grpc.aio.insecure_channel(served.server.addresses[0], options=small_window) as channel,
    ):
        served.engine.will_say(*["x" * 20_000] * 100)
        stub = Served(served.server, served.engine, served.clock, channel, tmp_path).generations
        call = stub.Generate(generate_request("Hi"))
        name = (await call.read()).event.accepted.generation
        run = served.server.generations.get("local", name.partition("/")[2])
        async with asyncio.timeout(5):
            while run.num_readers:  # noqa: ASYNC110 - the server's own end of a stream is silent
                await asyncio.sleep(0.01)
        with refused("SLOW_CONSUMER", CODE.ABORTED):
            await events_of(call)
        watch = generation_pb.WatchGenerationRequest(name=name)
        events = await events_of(served.generations.WatchGeneration(watch))
        assert kinds(events)[-1] == "completed"
        assert text_of(events) == "x" * 2_000_000
