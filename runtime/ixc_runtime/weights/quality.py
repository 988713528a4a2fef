"""How far a new model is from its source.

Merged weights from run-time adapters, which should be no more than roundings apart; rounded
weights from plain ones, which are as far apart as 4 bits make them.

Both models run the same passages, layer by layer, so that two models of any size are compared in
the memory of one layer. What counts as good enough is the caller's to say.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from ixc_runtime.errors import FieldInvalid
from ixc_runtime.request import BASE_ADAPTER
from ixc_runtime.weights.calibration import held_out_samples, lay_out_samples
from ixc_runtime.weights.figures import Agreement, AgreementFigures, Drift, QualityFigures
from ixc_runtime.weights.peft import load_peft_adapter
from ixc_runtime.weights.progress import Report
from ixc_runtime.weights.settings import MergeSettings, ProbeSettings, Sample
from ixc_runtime.weights.source import Source
from ixc_runtime.weights.walk import EXTRA, Passage, Predictions, Walk


def check_merged(
    source: Path,
    merged: Path,
    settings: MergeSettings,
    report: Report,
    *,
    samples: tuple[Sample, ...] = (),
) -> AgreementFigures:
    """Logits of the merged model beside those of `source` with what was merged at run time."""
    plain = Source(source)
    passages = _passages(plain, ProbeSettings(samples=samples))
    return check_merged_over(passages, plain, Source(merged), settings, report)


def check_merged_over(
    passages: Sequence[Passage],
    source: Source,
    merged: Source,
    settings: MergeSettings,
    report: Report,
) -> AgreementFigures:
    """As `check_merged`, with the passages laid out already."""
    device = settings.device
    if settings.adapter is not None:
        adapter = EXTRA
        pairs = load_peft_adapter(settings.adapter, source.config, device=device)
    else:
        assert settings.task is not None, "what was merged was a task or an adapter"
        adapter, pairs = settings.task, ()
    adapted = [replace(passage, adapter=adapter) for passage in passages]
    plain = [replace(passage, adapter=BASE_ADAPTER) for passage in passages]
    expected = _predict(Walk(source, adapted, device=device, pairs=pairs), "source", 0, report)
    found = _predict(Walk(merged, plain, device=device), "merged", 1, report)
    text, image = _AgreementSums(), _AgreementSums()
    for number, passage in enumerate(passages):
        sums = image if passage.canvases else text
        sums.add(expected.logits(number), found.logits(number))
    return AgreementFigures(
        dtype=merged.config.torch_dtype,
        text=text.figures(),
        image=image.figures() if image.positions else None,
    )


def measure_quality(
    source: Path, candidate: Path, settings: ProbeSettings, report: Report
) -> QualityFigures:
    """Perplexity and drift of `candidate` beside `source`, on texts and on pictures' answers."""
    plain = Source(source)
    return measure_quality_over(
        _passages(plain, settings), plain, Source(candidate), settings.device, report
    )


def measure_quality_over(
    passages: Sequence[Passage], source: Source, candidate: Source, device: str, report: Report
) -> QualityFigures:
    """As `measure_quality`, with the passages laid out already."""
    expected = _predict(Walk(source, passages, device=device), "source", 0, report)
    found = _predict(Walk(candidate, passages, device=device), "candidate", 1, report)
    text, image = _DriftSums(), _DriftSums()
    for number, passage in enumerate(passages):
        sums = image if passage.canvases else text
        sums.add(expected.logits(number), found.logits(number), passage.targets)
    return QualityFigures(text=text.figures(), image=image.figures() if image.positions else None)


def _passages(source: Source, probes: ProbeSettings) -> tuple[Passage, ...]:
    samples = probes.samples or held_out_samples(with_images=source.inventory.tower is not None)
    passages = lay_out_samples(source, samples, max_tokens=probes.max_sample_tokens)
    if not any(not passage.canvases for passage in passages):
        raise FieldInvalid("samples", "no text is among the samples to measure with")
    return passages


def _predict(walk: Walk, name: str, index: int, report: Report) -> Predictions:
    num_layers = walk.source.config.num_layers
    report.stage(name, index=index, count=2)
    walk.enter()
    for layer in range(num_layers):
        walk.run_all(walk.read_layer(layer))
        report.item(f"model.layers.{layer}", done=layer + 1, total=num_layers)
    return walk.leave()


@dataclass(slots=True)
class _AgreementSums:
    positions: int = 0
    same_top1: int = 0
    max_difference: float = 0.0
    scale: float = 0.0

    def add(self, expected: Tensor, found: Tensor) -> None:
        self.positions += len(expected)
        self.same_top1 += _num_same_top1(expected, found)
        self.max_difference = _larger(self.max_difference, (expected - found).abs().max())
        self.scale = _larger(self.scale, expected.abs().max())

    def figures(self) -> Agreement:
        return Agreement(
            positions=self.positions,
            max_difference=self.max_difference,
            scale=self.scale,
            top1_agreement=self.same_top1 / self.positions,
        )


@dataclass(slots=True)
class _DriftSums:
    positions: int = 0
    same_top1: int = 0
    source_loss: float = 0.0
    candidate_loss: float = 0.0
    kl: float = 0.0
    max_kl: float = 0.0

    @torch.inference_mode()
    def add(self, expected: Tensor, found: Tensor, targets: Sequence[int]) -> None:
        wanted = torch.tensor(targets, device=expected.device).unsqueeze(-1)
        p, q = log_softmax(expected, -1), log_softmax(found, -1)
        kl = (p.exp() * (p - q)).sum(-1)
        self.positions += len(expected)
        self.same_top1 += _num_same_top1(expected, found)
        self.source_loss -= float(p.gather(-1, wanted).sum())
        self.candidate_loss -= float(q.gather(-1, wanted).sum())
        self.kl += float(kl.sum())
        self.max_kl = _larger(self.max_kl, kl.max())

    def figures(self) -> Drift:
        return Drift(
            positions=self.positions,
            source_perplexity=_perplexity(self.source_loss, self.positions),
            candidate_perplexity=_perplexity(self.candidate_loss, self.positions),
            mean_kl=self.kl / self.positions,
            max_kl=self.max_kl,
            top1_agreement=self.same_top1 / self.positions,
        )


def _larger(most: float, value: Tensor) -> float:
    """Not a number if either is not: Python's `max` would forget it."""
    return float(torch.maximum(torch.tensor(most, device=value.device), value))


def _perplexity(loss: float, positions: int) -> float:
    try:
        return math.exp(loss / positions)
    except OverflowError:
        return math.inf


def _num_same_top1(expected: Tensor, found: Tensor) -> int:
    return int((expected.argmax(-1) == found.argmax(-1)).sum())
