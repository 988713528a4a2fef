"""Text answers of the demo model are SmolLM2's, token for token.

The reference is transformers' LlamaForCausalLM on the same GGUF file, in float32. An id may differ
only where the reference's two best logits are within `NEAR_TIE` of each other, and is printed.
"""

import asyncio
from pathlib import Path

import pytest

from ixc_runtime import (
    Engine,
    EngineConfig,
    GenerationRequest,
    SamplingParams,
    TextDelta,
    TokenPrompt,
)
from tests.parity.llama_reference import LlamaReference

pytestmark = [
    pytest.mark.demo,
    pytest.mark.timeout(900),  # the first one may have to download, build and load everything
]

NUM_TOKENS = 64
NEAR_TIE = 1e-4

START, END = 1, 2  # <|im_start|>, <|im_end|>

QUESTIONS = (
    "What is the capital of France?",
    "Name three primary colours.",
    "Write a short poem about the sea.",
    "How does a bicycle stay upright?",
    "Explain photosynthesis to a child.",
    "What is 17 plus 25?",
    "Give me a recipe for pancakes.",
    "Who wrote Romeo and Juliet?",
    "Translate 'good morning' into French.",
    "List the planets of the solar system in order.",
    "Why is the sky blue?",
    "What should I pack for a weekend in the mountains? Please answer as a list.",
)
TEXTS = (
    "Once upon a time, in a village by the sea,",
    "def fibonacci(n):\n    if n < 2:\n        return n\n",
    "The three laws of thermodynamics are:\n\n1.",
    "<html>\n<head>\n<title>",
    "In 1969, Neil Armstrong",
    "Il était une fois",
    "\u4f60\u597d",
    "SELECT name, COUNT(*) FROM",
    "A",
    "Dear Sir or Madam,\n\nI am writing to",
    "The harbour was quiet in the early morning, before the first of the boats came back. " * 12,
    "Numbers: " + ", ".join(str(number * number) for number in range(60)),
)


@pytest.fixture(scope="module")
def reference(demo_gguf: Path) -> LlamaReference:
    return LlamaReference(demo_gguf)


Prompts = list[tuple[int, ...]]


@pytest.fixture(scope="module")
def prompts(demo_model: Path) -> Prompts:
    """Two dozen prompts: questions framed as turns, and texts to go on with."""
    from ixc_runtime.prompt.tokenizer import load_tokenizer

    encode = load_tokenizer(demo_model).encode
    turns = [
        (START, *encode(f"user\n{question}"), END, *encode("\n"), START, *encode("assistant\n"))
        for question in QUESTIONS
    ]
    return [*turns, *(tuple(encode(text)) for text in TEXTS)]


async def answer(engine: Engine, prompt: tuple[int, ...]) -> list[int]:
    request = GenerationRequest(
        prompt=TokenPrompt(token_ids=prompt),
        sampling=SamplingParams(temperature=0.0, max_output_tokens=NUM_TOKENS, ignore_eos=True),
    )
    updates = [update async for update in engine.generate(request)]
    return [id_ for update in updates if isinstance(update, TextDelta) for id_ in update.token_ids]


def assert_greedy(reference: LlamaReference, prompt: tuple[int, ...], ours: list[int]) -> None:
    assert len(ours) == NUM_TOKENS
    for position, choice in enumerate(reference.judge(prompt, ours)):
        if ours[position] != choice.token_id:
            where = f"prompt of {len(prompt)} tokens, answer {position}: {ours[position]}, {choice}"
            assert ours[position] == choice.runner_up, where
            assert choice.margin <= NEAR_TIE, where
            print(f"near tie taken the other way: {where}")


async def test_each_prompt_alone(
    demo_model: Path, prompts: Prompts, reference: LlamaReference
) -> None:
    """One request at a time gives the reference's ids."""
    engine = await Engine.start(EngineConfig(model=str(demo_model)), in_process=True)
    try:
        answers = [await answer(engine, prompt) for prompt in prompts]
    finally:
        await engine.close()

    for prompt, ours in zip(prompts, answers, strict=True):
        assert_greedy(reference, prompt, ours)
    # The judge's word stands for `generate`: where no tie is near, they agree literally.
    for prompt, ours in zip(prompts[:3], answers[:3], strict=True):
        assert reference.generate(prompt, NUM_TOKENS) == ours


async def test_a_batch_of_eight_with_chunked_prefill(
    demo_model: Path, prompts: Prompts, reference: LlamaReference
) -> None:
    """All at once, eight in a step and prompts cut into chunks: still the reference's ids."""
    config = EngineConfig(
        model=str(demo_model), max_batch=8, max_step_tokens=40, reuse_prefixes=False
    )
    engine = await Engine.start(config, in_process=True)
    try:
        answers = await asyncio.gather(*(answer(engine, prompt) for prompt in prompts))
    finally:
        await engine.close()

    assert max(map(len, prompts)) > 3 * config.max_step_tokens
    for prompt, ours in zip(prompts, answers, strict=True):
        assert_greedy(reference, prompt, ours)
