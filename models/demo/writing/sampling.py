"""Text by SmolLM2 and its adapters, many prompts at once, by way of transformers.

Training's own model keeps no cache of keys and values. For drafting thousands of paragraphs, and
for a look at what an adapter writes before it is exported, its weights are given to transformers'
Llama, with the adapters' products added to them. Pictures are not for here.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from models.demo.training.batches import Framer
from models.demo.training.language import Language
from models.demo.training.model import PROJECTIONS, Adapter

Llama = Any  # transformers.LlamaForCausalLM, whose annotations contradict each other

_PROJECTION_NAMES = {
    "wo": "self_attn.o_proj",
    "w1": "mlp.gate_proj",
    "w3": "mlp.up_proj",
    "w2": "mlp.down_proj",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """`stopped`: the model ended its turn by itself."""

    text: str
    stopped: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """Temperature 0 takes the likeliest token."""

    max_tokens: int
    temperature: float = 0.0
    top_k: int = 50
    seed: int = 0
    batch: int = 512


def llama_with(language: Language, adapters: Sequence[Adapter] = ()) -> Llama:
    """Language and adapters as one Llama, on the language's device and in its type."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes, like = language.sizes, language.embedding
    config = LlamaConfig(
        vocab_size=sizes.vocab_size,
        hidden_size=sizes.hidden_size,
        intermediate_size=sizes.intermediate_size,
        num_hidden_layers=sizes.num_layers,
        num_attention_heads=sizes.num_heads,
        num_key_value_heads=sizes.num_kv_heads,
        rms_norm_eps=sizes.rms_norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": sizes.rope_theta},
        max_position_embeddings=sizes.max_position_embeddings,
        tie_word_embeddings=False,
    )
    with like.device:
        llama: Llama = LlamaForCausalLM(config)
    llama.to(like.dtype).eval()
    llama.load_state_dict(dict(_state(language, adapters)))
    return llama


@torch.inference_mode()
def answers(
    llama: Llama, framer: Framer, prompts: Sequence[str], sampling: Sampling
) -> list[Answer]:
    """One to each prompt, in their order; each is a user's turn without a system text."""
    torch.manual_seed(sampling.seed)
    ids = [_opened(framer, prompt) for prompt in prompts]
    # Prompts of like length together, the longest first: little padding, and no late surprise.
    order = sorted(range(len(ids)), key=lambda index: -len(ids[index]))
    found: dict[int, Answer] = {}
    for start in range(0, len(order), sampling.batch):
        rows = order[start : start + sampling.batch]
        new = _continue(llama, framer, [ids[row] for row in rows], sampling)
        for row, tokens in zip(rows, new.tolist(), strict=True):
            stopped = framer.end in tokens
            text = framer.decode(tokens[: tokens.index(framer.end)] if stopped else tokens)
            found[row] = Answer(text=text.strip(), stopped=stopped)
    return [found[row] for row in range(len(prompts))]


def _opened(framer: Framer, prompt: str) -> list[int]:
    # Without the empty answer's own end of turn and line break.
    return list(framer.chat([(prompt, "")]).ids[:-2])


def _continue(llama: Llama, framer: Framer, rows: list[list[int]], sampling: Sampling) -> Tensor:
    """Left-padded prompts (B, P) → the tokens behind them (B, at most max_tokens)."""
    width = max(map(len, rows))
    padded = torch.tensor([[framer.pad] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    chosen = (
        {"do_sample": True, "temperature": sampling.temperature, "top_k": sampling.top_k}
        if sampling.temperature
        else {"do_sample": False}
    )
    whole: Tensor = llama.generate(
        padded.to(llama.device),
        attention_mask=mask.to(llama.device),
        max_new_tokens=sampling.max_tokens,
        eos_token_id=framer.end,
        pad_token_id=framer.pad,
        **chosen,
    )
    return whole[:, width:]


def _state(language: Language, adapters: Sequence[Adapter]) -> Iterator[tuple[str, Tensor]]:
    sizes = language.sizes
    yield "model.embed_tokens.weight", language.embedding
    yield "model.norm.weight", language.norm
    yield "lm_head.weight", language.output
    for index, layer in enumerate(language.layers):
        at = f"model.layers.{index}"
        yield f"{at}.input_layernorm.weight", layer.attention_norm
        yield f"{at}.post_attention_layernorm.weight", layer.ffn_norm
        pairs = [adapter.pairs(index) for adapter in adapters]
        for name in PROJECTIONS:
            weight: Tensor = getattr(layer, name)
            for down, up in (pair[name] for pair in pairs):
                weight = (weight.float() + up.float() @ down.float()).to(weight.dtype)
            if name != "wqkv":
                yield f"{at}.{_PROJECTION_NAMES[name]}.weight", weight
                continue
            groups = weight.view(sizes.num_kv_heads, -1, sizes.head_dim, sizes.hidden_size)
            parts = (groups[:, :-2].flatten(0, 2), groups[:, -2].flatten(0, 1))
            for part, rows in zip("qkv", (*parts, groups[:, -1].flatten(0, 1)), strict=True):
                yield f"{at}.self_attn.{part}_proj.weight", rows
