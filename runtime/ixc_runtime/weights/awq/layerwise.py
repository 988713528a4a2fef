"""Quantize: a model's decoder linears as 4-bit levels, in the published AWQ layout.

Layer by layer: calibration passages run through the plain layer, the scales and ranges that suit
what its linears saw are searched, and the layer is written as one shard. In memory are one layer
and the passages' rows. Embeddings, output, norms, adapters, tower and projector stay floats, in
half precision; scales are float16 whatever they are.

What later layers see are the plain model's rows, not those of layers already rounded: so layers
do not depend on each other, and a run that is resumed finds exactly what it would have found.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ixc_cuda.awq_layout import RoundedLinear, pack_linear
from ixc_runtime.checkpoint.shards import INDEX_NAME
from ixc_runtime.model.inventory import LinearSite, layer_sites
from ixc_runtime.weights.awq.calibrate import Calibration, LayerMoments
from ixc_runtime.weights.awq.feedback import round_with_feedback
from ixc_runtime.weights.awq.plan import (
    KEPT_DTYPES,
    check_settings,
    plan_shards,
    quantization_document,
)
from ixc_runtime.weights.awq.precision import coarse_products
from ixc_runtime.weights.awq.search import (
    find_scale,
    relative_error,
    round_clipped,
    round_plainly,
)
from ixc_runtime.weights.awq.smoothing import LayerScales, smooth
from ixc_runtime.weights.calibration import calibration_samples, lay_out_samples
from ixc_runtime.weights.figures import QuantizeSummary
from ixc_runtime.weights.progress import Output, Report
from ixc_runtime.weights.settings import QuantizeMethod, QuantizeSettings
from ixc_runtime.weights.sharding import index_document
from ixc_runtime.weights.source import Source, cast, require_finite
from ixc_runtime.weights.walk import Passage, Walk
from ixc_runtime.weights.writing import ShardWriter


def quantize(
    source: Path, output: Output, settings: QuantizeSettings, report: Report
) -> QuantizeSummary:
    """Write `source` rounded to 4 bits. The settings' and the folder's faults come first."""
    model = Source(source)
    check_settings(model, settings)
    passages: tuple[Passage, ...] = ()
    if settings.method is QuantizeMethod.AWQ:
        samples = settings.samples or calibration_samples(
            with_images=model.inventory.tower is not None
        )
        passages = lay_out_samples(model, samples, max_tokens=settings.max_sample_tokens)
    return quantize_over(passages, model, output, settings, report)


def quantize_over(
    passages: tuple[Passage, ...],
    model: Source,
    output: Output,
    settings: QuantizeSettings,
    report: Report,
) -> QuantizeSummary:
    """As `quantize`, with the passages laid out already; plain rounding needs none."""
    check_settings(model, settings)
    num_layers = model.config.num_layers
    kept_dtype = KEPT_DTYPES[settings.dtype]
    shards = plan_shards(model, settings.group_size, kept_dtype)
    finished = [output.has_shard(shard.file) for shard in shards]
    report.stage("layers", index=0, count=2)
    layers = _Layers(model, settings, passages, report)
    errors: list[float] = []
    with coarse_products(settings.device), ShardWriter(output) as writer:
        for index, shard in enumerate(shards[:num_layers]):
            if not finished[index]:
                tensors = layers.quantized(index)
                errors += layers.errors
                writer.write(
                    shard.file, {each.name: tensors[each.name].cpu() for each in shard.tensors}
                )
            else:
                report.log(f"{shard.file} was finished by an earlier run")
                if not all(finished[index:num_layers]):
                    layers.pass_by(index)  # for the rows that later layers see
            report.item(f"model.layers.{index}", done=index + 1, total=num_layers)
        report.stage("rest", index=1, count=2)
        rest = shards[num_layers:]
        for number, shard in enumerate(rest):
            if not finished[num_layers + number]:
                writer.write(
                    shard.file,
                    {
                        each.name: cast(each.name, model.read(each.name), each.dtype)
                        for each in shard.tensors
                    },
                )
            report.item(shard.file, done=number + 1, total=len(rest))
    config = {"torch_dtype": settings.dtype, "quantization_config": quantization_document(settings)}
    model.write_companions(output, config=config, settings={})
    output.write_json(INDEX_NAME, index_document(shards))
    return QuantizeSummary(
        method=settings.method,
        group_size=settings.group_size,
        dtype=settings.dtype,
        num_layers=num_layers,
        num_resumed_layers=sum(finished[:num_layers]),
        num_bytes=sum(shard.num_bytes for shard in shards),
        source_bytes=sum(entry.num_bytes for entry in model.entries.values()),
        calibration_text_tokens=sum(passage.num_text_tokens for passage in passages),
        calibration_image_tokens=sum(passage.num_image_tokens for passage in passages),
        relative_error=sum(errors) / len(errors) if errors else None,
    )


class _Layers:
    """Rounds layer after layer, in order. `errors` are those of the layer rounded last."""

    def __init__(
        self,
        model: Source,
        settings: QuantizeSettings,
        passages: tuple[Passage, ...],
        report: Report,
    ) -> None:
        self._model = model
        self._settings = settings
        self._report = report
        self._walk = Walk(model, passages, device=settings.device)
        self._calibration: Calibration | None = None
        self.errors: list[float] = []

    def pass_by(self, index: int) -> None:
        """A layer whose shard is finished."""
        if self._settings.method is QuantizeMethod.AWQ:
            self._started().pass_layer(index)

    @torch.inference_mode()
    def quantized(self, index: int) -> dict[str, Tensor]:
        """Every tensor of the layer's shard."""
        self.errors = []
        sites = layer_sites(self._model.config, index)
        if self._settings.method is QuantizeMethod.RTN:
            self._walk.weights.forget()
            tensors = self._read(index)
            rounded = {
                site.name: round_plainly(tensors[f"{site.name}.weight"], self._settings.group_size)
                for site in sites
            }
        else:
            moments = self._started().watch_layer(index)
            tensors, rounded = self._searched(index, sites, self._read(index), moments)
        return self._stored(sites, tensors, rounded)

    def _started(self) -> Calibration:
        if self._calibration is None:
            self._calibration = Calibration(self._walk)
        return self._calibration

    def _read(self, index: int) -> dict[str, Tensor]:
        take = self._walk.weights.take
        entries = self._model.layer_entries(index)
        return {name: take(name) for name in entries if name in self._model.inventory.entries}

    def _searched(
        self,
        index: int,
        sites: tuple[LinearSite, ...],
        tensors: dict[str, Tensor],
        moments: LayerMoments,
    ) -> tuple[dict[str, Tensor], dict[str, RoundedLinear]]:
        group = self._settings.group_size
        wqkv, wo, w1, w3, w2 = (site.name for site in sites)

        def weight(name: str) -> Tensor:
            return tensors[f"{name}.weight"]

        scales = LayerScales(
            attention_norm=find_scale([weight(wqkv)], moments.wqkv, group),
            ffn_norm=find_scale([weight(w1), weight(w3)], moments.gate_and_up, group),
            inner=find_scale([weight(w2)], moments.w2, group),
        )
        tensors = smooth(
            f"model.layers.{index}",
            sites,
            tensors,
            scales,
            compensate_adapters=self._settings.compensate_adapters,
        )
        read_together = (
            ((wqkv,), moments.wqkv.scaled_gram(scales.attention_norm)),
            ((wo,), moments.wo.gram),
            ((w1, w3), moments.gate_and_up.scaled_gram(scales.ffn_norm)),
            ((w2,), moments.w2.scaled_gram(scales.inner)),
        )
        rounded: dict[str, RoundedLinear] = {}
        for names, gram in read_together:
            # Rows know nothing of each other; columns are gone through once for all of them.
            stacked = torch.cat([weight(name) for name in names])
            on_grid = round_clipped(stacked, gram, group)
            shifted = round_with_feedback(stacked, on_grid, gram)
            parts = shifted.split([len(weight(name)) for name in names])
            for name, part in zip(names, parts, strict=True):
                rounded[name] = part
                error = relative_error(weight(name), part, gram)
                self.errors.append(error)
                self._report.metric(layer=name, name="relative_error", value=error)
        return tensors, rounded

    def _stored(
        self,
        sites: tuple[LinearSite, ...],
        tensors: dict[str, Tensor],
        rounded: Mapping[str, RoundedLinear],
    ) -> dict[str, Tensor]:
        """Levels packed, everything else in the kept dtype."""
        dense = {f"{site.name}.weight" for site in sites}
        dtype = KEPT_DTYPES[self._settings.dtype]
        stored = {
            name: cast(name, tensor, dtype) for name, tensor in tensors.items() if name not in dense
        }
        for name, levels in rounded.items():
            packed = pack_linear(levels)
            require_finite(f"{name}.scales", packed.scales)
            stored[f"{name}.qweight"] = packed.qweight
            stored[f"{name}.qzeros"] = packed.qzeros
            stored[f"{name}.scales"] = packed.scales
        return stored
