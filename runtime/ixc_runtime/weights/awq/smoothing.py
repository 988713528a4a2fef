"""Scales moved from a layer's inputs into its weights, adapters included: what it computes stays.

    attention_norm / s  ->  wqkv * s          and the A of every adapter of wqkv * s
    ffn_norm / t        ->  w1, w3 * t        and the A of every adapter of w1 and w3 * t
    w3's rows / u       ->  w2 * u            and the B of w3's adapters / u, the A of w2's * u

(A scale multiplies columns, except where rows are named.) The published tool scales the base
weights alone: adapters then read inputs that were scaled for somebody else, and every row that
takes one, image rows above all, is changed before anything is rounded.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from ixc_runtime.model.inventory import LOW_RANK_SETS, LinearSite


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerScales:
    """`norm` scales are per hidden column, `inner` per column of w2."""

    attention_norm: Tensor
    ffn_norm: Tensor
    inner: Tensor


def smooth(
    prefix: str,
    sites: tuple[LinearSite, ...],
    tensors: Mapping[str, Tensor],
    scales: LayerScales,
    *,
    compensate_adapters: bool = True,
) -> dict[str, Tensor]:
    """All of a layer's tensors, the scaled ones replaced. `sites` are wqkv, wo, w1, w3, w2."""
    wqkv, _, w1, w3, w2 = (site.name for site in sites)
    smoothed = dict(tensors)

    def multiply(site: str, scale: Tensor) -> None:
        for name in _readers(site, tensors, compensate_adapters):
            smoothed[name] = smoothed[name] * scale

    smoothed[f"{prefix}.attention_norm.weight"] = (
        tensors[f"{prefix}.attention_norm.weight"] / scales.attention_norm
    )
    multiply(wqkv, scales.attention_norm)
    smoothed[f"{prefix}.ffn_norm.weight"] = tensors[f"{prefix}.ffn_norm.weight"] / scales.ffn_norm
    multiply(w1, scales.ffn_norm)
    multiply(w3, scales.ffn_norm)
    multiply(w2, scales.inner)
    for name in _writers(w3, tensors, compensate_adapters):
        smoothed[name] = smoothed[name] / scales.inner.unsqueeze(-1)
    return smoothed


def _readers(site: str, tensors: Mapping[str, Tensor], with_adapters: bool) -> Iterator[str]:
    """The tensors that read a linear's inputs, as columns."""
    yield f"{site}.weight"
    if with_adapters:
        yield from _halves(site, "A", tensors)


def _writers(site: str, tensors: Mapping[str, Tensor], with_adapters: bool) -> Iterator[str]:
    """The tensors that make a linear's outputs, as rows."""
    yield f"{site}.weight"
    if with_adapters:
        yield from _halves(site, "B", tensors)


def _halves(site: str, half: str, tensors: Mapping[str, Tensor]) -> Iterator[str]:
    names = (f"{site}.{low_rank}_{half}.weight" for low_rank in LOW_RANK_SETS)
    return (name for name in names if name in tensors)
