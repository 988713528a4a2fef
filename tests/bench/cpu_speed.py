"""Speed on this CPU, beside transformers on the same weights, in one run.

    python -m tests.bench.cpu_speed [--repeats N] [--tokens N] [--output FILE]

Greedy, float32, the demo model. Three questions, each answered several times in turn, so that a
change of the machine's mood meets everyone alike:

* one stream: tokens per second, prompt included, of transformers' `generate`, of our engine in a
  process of its own, and of that through gRPC;
* eight streams: ours at once, theirs one after another, which is all that `generate` offers to
  requests that arrive separately;
* a picture: seconds to the first token of the first turn about it, and of the second.
"""

import argparse
import asyncio
import io
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from skimage.data import chelsea

import ixc_client
from ixc_runtime import (
    Engine,
    EngineConfig,
    GenerationRequest,
    SamplingParams,
    TextDelta,
    TokenPrompt,
)
from ixc_runtime.checkpoint.demo_model import downloaded_gguf, ensure_demo_model
from ixc_runtime.prompt.tokenizer import load_tokenizer
from tests.bench.record import RESULTS, Goal, Measurement, show, write
from tests.parity.llama_reference import LlamaReference

KV_BYTES = 512 * 2**20

QUESTIONS = (
    "What is the capital of France, and what is it known for?",
    "Write a short story about a lighthouse and its keeper.",
    "Explain to a child how rain comes about.",
    "Give me a recipe for pancakes with blueberries.",
    "What should I pack for a weekend in the mountains?",
    "Describe the rules of chess in a few sentences.",
    "Why do leaves change their colour in autumn?",
    "How can I learn to play the guitar by myself?",
)

Ids = tuple[int, ...]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=64, help="generated per answer")
    parser.add_argument("--gguf", type=Path, help="SmolLM2's file, instead of a download")
    parser.add_argument("--output", type=Path, default=RESULTS / "cpu_speed.json")
    args = parser.parse_args()
    if args.gguf:
        reference = LlamaReference(args.gguf)
    else:
        with downloaded_gguf(print) as path:
            reference = LlamaReference(path)
    model = ensure_demo_model(gguf=args.gguf, progress=print)
    measurements, goals = asyncio.run(measure(reference, model, args.repeats, args.tokens))
    show(measurements, goals)
    settings = {
        "model": model.name,
        "dtype": "float32",
        "threads": torch.get_num_threads(),
        "tokens_per_answer": args.tokens,
        "prompt_tokens": [len(prompt) for prompt in prompts_of(model)],
    }
    write(args.output, measurements, goals, settings)


def prompts_of(model: Path) -> list[Ids]:
    encode = load_tokenizer(model).encode
    return [tuple(encode(question)) for question in QUESTIONS]


async def measure(
    reference: LlamaReference, model: Path, repeats: int, num_tokens: int
) -> tuple[list[Measurement], list[Goal]]:
    async with AsyncExitStack() as stack:
        sides = await open_sides(stack, reference, model, num_tokens)
        prompts = prompts_of(model)
        alone = await tokens_per_second(sides, prompts[:1], repeats, label="1 stream")
        together = await tokens_per_second(sides, prompts, repeats, label=f"{len(prompts)} streams")
    async with AsyncExitStack() as stack:
        turns = await picture_turns(await serve(stack, model), repeats)
    goals = [
        *(goal(alone[side], alone["transformers"], at_least=1) for side in ("engine", "gRPC")),
        *(
            goal(together[side], together["transformers"], at_least=3)
            for side in ("engine", "gRPC")
        ),
        goal(turns["first"], turns["second"], at_least=5),
    ]
    return [*alone.values(), *together.values(), *turns.values()], goals


def goal(better: Measurement, than: Measurement, *, at_least: float) -> Goal:
    return Goal(
        name=f"{better.name} / {than.name}", ratio=better.median / than.median, at_least=at_least
    )


Side = Callable[[Sequence[Ids]], Awaitable[int]]


async def open_sides(
    stack: AsyncExitStack, reference: LlamaReference, model: Path, num_tokens: int
) -> Mapping[str, Side]:
    """Three ways to answer prompts; each returns how many tokens it generated.

    Prefixes are not reused: every repeat computes its prompts, as transformers does.
    """
    config = EngineConfig(model=str(model), kv_bytes=KV_BYTES, reuse_prefixes=False)
    engine = await Engine.start(config)
    stack.push_async_callback(engine.close)
    client = await serve(stack, model, prefix_cache=False)

    async def transformers(prompts: Sequence[Ids]) -> int:
        return sum([len(reference.generate(prompt, num_tokens)) for prompt in prompts])

    async def engine_alone(prompts: Sequence[Ids]) -> int:
        answers = (engine_answer(engine, prompt, num_tokens) for prompt in prompts)
        return sum(await asyncio.gather(*answers))

    async def through_grpc(prompts: Sequence[Ids]) -> int:
        answers = (client_answer(client, prompt, num_tokens) for prompt in prompts)
        return sum(await asyncio.gather(*answers))

    return {"transformers": transformers, "engine": engine_alone, "gRPC": through_grpc}


async def tokens_per_second(
    sides: Mapping[str, Side], prompts: Sequence[Ids], repeats: int, *, label: str
) -> dict[str, Measurement]:
    """Every side in turn, `repeats` times, after one round that does not count."""
    rates: dict[str, list[float]] = {side: [] for side in sides}
    for repeat in range(repeats + 1):
        for name, side in sides.items():
            began = time.perf_counter()
            num_tokens = await side(prompts)
            if repeat > 0:
                rates[name].append(num_tokens / (time.perf_counter() - began))
    return {
        name: Measurement(name=f"{label}, {name}", unit="tokens/s", values=tuple(values))
        for name, values in rates.items()
    }


async def engine_answer(engine: Engine, prompt: Ids, num_tokens: int) -> int:
    request = GenerationRequest(
        prompt=TokenPrompt(token_ids=prompt),
        sampling=SamplingParams(temperature=0.0, max_output_tokens=num_tokens, ignore_eos=True),
    )
    return sum(
        [
            len(update.token_ids)
            async for update in engine.generate(request)
            if isinstance(update, TextDelta)
        ]
    )


async def client_answer(client: ixc_client.AsyncClient, prompt: Ids, num_tokens: int) -> int:
    sampling = ixc_client.Sampling(temperature=0, max_output_tokens=num_tokens, ignore_eos=True)
    async with client.stream(ixc_client.TokenPrompt(prompt), sampling=sampling) as stream:
        async for _ in stream:
            pass
        return stream.answer.usage.output_tokens


async def picture_turns(client: ixc_client.AsyncClient, repeats: int) -> dict[str, Measurement]:
    """Seconds from sending a message to its first text, of the first and of the second turn."""
    seconds: dict[str, list[float]] = {"first": [], "second": []}
    sampling = ixc_client.Sampling(temperature=0, max_output_tokens=16, ignore_eos=True)
    for repeat in range(repeats + 1):
        async with client.session(sampling=sampling) as chat:
            first = await first_token(chat, "What animal is this?", [photograph(repeat)])
            second = await first_token(chat, "Which colour is its fur?", [])
        if repeat > 0:
            seconds["first"].append(first)
            seconds["second"].append(second)
    return {
        turn: Measurement(name=f"picture, {turn} turn", unit="s", values=tuple(values))
        for turn, values in seconds.items()
    }


async def first_token(
    chat: ixc_client.AsyncSession, question: str, images: Sequence[bytes]
) -> float:
    began = time.perf_counter()
    async with chat.stream(question, images=images) as stream:
        await anext(stream)
        seconds = time.perf_counter() - began
        async for _ in stream:
            pass
    return seconds


def photograph(variant: int) -> bytes:
    """scikit-image's chelsea with one pixel changed, so that no cache knows it from before."""
    pixels = np.array(chelsea())
    pixels[0, 0] = variant
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "PNG")
    return encoded.getvalue()


async def serve(stack: AsyncExitStack, model: Path, **settings: bool) -> ixc_client.AsyncClient:
    """The real server in processes of its own, and a client of it."""
    server = ixc_client.PrivateServer(model, kv_bytes=KV_BYTES, **settings)
    await asyncio.to_thread(server.start)
    stack.callback(server.stop)
    return await stack.enter_async_context(ixc_client.AsyncClient(server.address))


if __name__ == "__main__":
    main()
