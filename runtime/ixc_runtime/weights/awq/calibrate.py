"""Calibration passages through one decoder layer, and what each of its linears saw of them."""

from dataclasses import dataclass, replace

import torch

from ixc_runtime.config import ModelConfig
from ixc_runtime.model.decoder import DecoderLayer
from ixc_runtime.weights.awq.moments import Moments, Tap, row_weights
from ixc_runtime.weights.walk import Walk


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerMoments:
    """Of each linear's inputs, by `DecoderLayer`'s names; w1 and w3 read the same."""

    wqkv: Moments
    wo: Moments
    gate_and_up: Moments
    w2: Moments


class Calibration:
    """A walk of which every layer is watched, or merely passed."""

    def __init__(self, walk: Walk) -> None:
        self.walk = walk
        self._row_weights = row_weights(walk.passages, walk.device)
        walk.enter()

    def pass_layer(self, index: int) -> None:
        """A layer that an earlier run has finished: its outputs are needed all the same."""
        self.walk.run_all(self.walk.read_layer(index))

    @torch.inference_mode()
    def watch_layer(self, index: int) -> LayerMoments:
        """The layer's stored tensors stay readable from `walk.weights`."""
        layer = self.walk.read_layer(index)
        moments = _empty(self.walk.source.config, self.walk.device)
        for passage, weights in enumerate(self._row_weights):
            self.walk.run(_tapped(layer, moments, weights), passage)
        return moments


def _empty(config: ModelConfig, device: torch.device) -> LayerMoments:
    hidden, inner = config.hidden_size, config.intermediate_size
    return LayerMoments(
        wqkv=Moments(hidden, device),
        wo=Moments(hidden, device),
        gate_and_up=Moments(hidden, device),
        w2=Moments(inner, device),
    )


def _tapped(layer: DecoderLayer, moments: LayerMoments, weights: torch.Tensor) -> DecoderLayer:
    def tap(name: str) -> Tap:
        seen: Moments = getattr(moments, name)
        return Tap(layer.linears[name], lambda x: seen.add(x, weights))

    return replace(
        layer, wqkv=tap("wqkv"), wo=tap("wo"), gate_and_up=tap("gate_and_up"), w2=tap("w2")
    )
