"""Quantize: roundings and their bounds, scales that change nothing, and a search that helps."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from ixc_cuda import awq_layout
from ixc_runtime.errors import CheckpointInvalid, CheckpointUnsupported, FieldInvalid, RuntimeFault
from ixc_runtime.model.inventory import layer_sites
from ixc_runtime.model.loader import load_model
from ixc_runtime.weights import QualityFigures, QuantizeMethod, QuantizeSettings
from ixc_runtime.weights.awq.calibrate import Calibration
from ixc_runtime.weights.awq.feedback import round_with_feedback
from ixc_runtime.weights.awq.layerwise import quantize_over
from ixc_runtime.weights.awq.moments import Moments, row_weights
from ixc_runtime.weights.awq.precision import coarse_products
from ixc_runtime.weights.awq.search import (
    find_scale,
    relative_error,
    round_clipped,
    round_plainly,
)
from ixc_runtime.weights.awq.smoothing import LayerScales, smooth
from ixc_runtime.weights.quality import measure_quality_over
from ixc_runtime.weights.source import Source
from ixc_runtime.weights.walk import Walk
from tests.fakes.step_driver import IMAGE_TOKEN, Lane, StepDriver
from tests.fakes.tiny_checkpoint import (
    TinyModel,
    tiny_tensors,
    write_shards,
    write_tiny_checkpoint,
)
from tests.fakes.weights_work import FolderOutput, Notes, digests, tiny_passages

GROUPED = TinyModel(hidden=128, heads=4, intermediate=192, shards=2)
GROUP = 64


@st.composite
def weights(draw: st.DrawFn) -> tuple[Tensor, int]:
    """Of any size and offset, flat and one-sided groups among them."""
    group = draw(st.sampled_from([32, 64, 128]))
    rows, groups = 8 * draw(st.integers(1, 3)), draw(st.integers(1, 3))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    spread = draw(st.sampled_from([0.0, 1e-7, 1e-3, 1.0, 300.0]))
    offset = draw(st.sampled_from([0.0, 1e-3, -2.0, 50.0]))
    return torch.randn(rows, groups * group, generator=generator) * spread + offset, group


@settings(max_examples=150, deadline=None)
@given(case=weights())
def test_rounding_bounds(case: tuple[Tensor, int]) -> None:
    """No weight moves by more than half a step, whatever its group looks like."""
    weight, group = case
    rounded = round_plainly(weight, group)
    packed = awq_layout.pack_linear(rounded)
    back = awq_layout.dequantize(packed, group)
    assert torch.equal(back, rounded.weights())
    steps = rounded.scales.float().repeat_interleave(group, -1).flatten(1)
    # Half a step; the zero point's own rounding; and 15 times what float16 does to the step.
    bound = steps * (0.5 + 0.5 + 15 * 2**-11) + 15 * 2**-25
    assert ((weight - back).abs() <= bound).all()


@settings(max_examples=60, deadline=None)
@given(case=weights())
def test_half_a_step_where_nothing_is_clamped(case: tuple[Tensor, int]) -> None:
    """Levels 1 to 14 were not clamped: their weights are within half a step."""
    weight, group = case
    rounded = round_plainly(weight, group)
    levels = rounded.q.flatten(1)
    inside = (levels > 0) & (levels < 15)
    steps = rounded.scales.float().repeat_interleave(group, -1).flatten(1)
    error = (weight - rounded.weights()).abs()
    assert (error <= steps * (0.5 + 15 * 2**-11) + 15 * 2**-25)[inside].all()


def scales_of(model: TinyModel, seed: int) -> LayerScales:
    generator = torch.Generator().manual_seed(seed)

    def scale(size: int) -> Tensor:
        return torch.exp(torch.randn(size, generator=generator))

    return LayerScales(
        attention_norm=scale(model.hidden),
        ffn_norm=scale(model.hidden),
        inner=scale(model.intermediate),
    )


def smoothed_checkpoint(folder: Path, *, compensate: bool) -> tuple[Path, Path]:
    """A model, and the same with large arbitrary scales moved into it; nothing rounded."""
    model = TinyModel()
    source = write_tiny_checkpoint(folder / "source", model, shards=1)
    tensors = tiny_tensors(model)
    for layer in range(model.layers):
        prefix = f"model.layers.{layer}"
        mine = {name: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        sites = layer_sites(Source(source).config, layer)
        tensors |= smooth(
            prefix, sites, mine, scales_of(model, layer), compensate_adapters=compensate
        )
    target = write_tiny_checkpoint(folder / "smoothed", model, shards=1)
    write_shards(target, tensors, shards=1)
    return source, target


IMAGE_LANE = [IMAGE_TOKEN] * 9 + [5, 80, 200, 3]


def lane(adapter: str, *, with_image: bool) -> Lane:
    generator = torch.Generator().manual_seed(7)
    features = torch.randn(9, 64, generator=generator) if with_image else None
    tokens = IMAGE_LANE if with_image else IMAGE_LANE[9:] * 3
    return Lane(tokens=list(tokens), features=features, adapter=adapter)


MODES = [(adapter, image) for adapter in ("base", "web", "write") for image in (False, True)]


def change_by_smoothing(folder: Path, mode: tuple[str, bool], *, compensate: bool) -> float:
    before, after = (
        StepDriver(load_model(path)).step((each, each.left))[0]
        for path in smoothed_checkpoint(folder, compensate=compensate)
        for each in [lane(mode[0], with_image=mode[1])]
    )
    return float((before - after).abs().max() / before.abs().max())


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_smoothing_with_compensation_changes_nothing(
    tmp_path: Path, mode: tuple[str, bool]
) -> None:
    """Before anything is rounded: base, web and write, image rows and text."""
    assert change_by_smoothing(tmp_path, mode, compensate=True) < 1e-4


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_smoothing_without_compensation(tmp_path: Path, mode: tuple[str, bool]) -> None:
    """The published procedure keeps plain text alone; this is what compensation is for."""
    change = change_by_smoothing(tmp_path, mode, compensate=False)
    assert change < 1e-4 if mode == ("base", False) else change > 0.05


def outlier_moments(size: int = 128) -> Moments:
    """Inputs of which a few channels are fifty times the others."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(500, size, generator=generator)
    x[:, ::31] *= 50
    moments = Moments(size, torch.device("cpu"))
    moments.add(x, torch.full((500,), 1 / 500))
    return moments


def test_scales_and_clipping_lower_the_error() -> None:
    """Each step of the search leaves less error on the inputs it was shown."""
    weight = torch.randn(64, 128, generator=torch.Generator().manual_seed(2))
    moments = outlier_moments()
    plain = relative_error(weight, round_plainly(weight, GROUP), moments.gram)
    scale = find_scale([weight], moments, GROUP)
    gram = moments.scaled_gram(scale)
    smoothed = relative_error(weight * scale, round_plainly(weight * scale, GROUP), gram)
    on_grid = round_clipped(weight * scale, gram, GROUP)
    clipped = relative_error(weight * scale, on_grid, gram)
    assert smoothed < 0.6 * plain
    assert clipped < smoothed
    assert scale[::31].min() > scale.median()


def test_feedback_lowers_the_error_on_other_inputs() -> None:
    """Where inputs go together, errors are made good; not only on the inputs it was shown."""
    generator = torch.Generator().manual_seed(5)
    mixing = torch.randn(20, 128, generator=generator)

    def moments(rows: int) -> Moments:
        found = Moments(128, torch.device("cpu"))
        x = torch.randn(rows, 20, generator=generator) @ mixing
        x += 0.3 * torch.randn(rows, 128, generator=generator)
        found.add(x, torch.full((rows,), 1 / rows))
        return found

    shown, other = moments(600), moments(300)
    weight = torch.randn(64, 128, generator=generator)
    clipped = round_clipped(weight, shown.gram, GROUP)
    fed_back = round_with_feedback(weight, clipped, shown.gram)
    assert torch.equal(fed_back.scales, clipped.scales)
    assert torch.equal(fed_back.zeros, clipped.zeros)
    before, after = (relative_error(weight, each, other.gram) for each in (clipped, fed_back))
    assert after < 0.6 * before


def inputs_that_go_together(size: int, rows: int) -> Moments:
    generator = torch.Generator().manual_seed(11)
    x = torch.randn(rows, size // 4, generator=generator)
    x = x @ torch.randn(size // 4, size, generator=generator)
    x += 0.3 * torch.randn(rows, size, generator=generator)
    x *= torch.exp(torch.randn(size, generator=generator))
    moments = Moments(size, torch.device("cpu"))
    moments.add(x, torch.full((rows,), 1 / rows))
    return moments


def levels_by_gptq(weight: Tensor, rounded: awq_layout.RoundedLinear, gram: Tensor) -> Tensor:
    """As published: by the inverse's factor, every later column shifted at once; float64."""
    gram = gram.double()
    order = gram.diagonal().argsort(descending=True)
    damped = gram + 0.1 * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64)
    inverse = torch.linalg.inv(damped[order][:, order])
    factor = torch.linalg.cholesky(inverse, upper=True)
    left = weight.double()[:, order]
    levels = torch.empty_like(left)
    for number, column in enumerate(order.tolist()):
        group = column // rounded.q.shape[-1]
        scale, zero = (each[:, group, 0].double() for each in (rounded.scales, rounded.zeros))
        level = (torch.round(left[:, number] / scale) + zero).clamp(0, awq_layout.LEVELS)
        error = (left[:, number] - (level - zero) * scale) / factor[number, number]
        left[:, number:] -= error.unsqueeze(-1) * factor[number, number:]
        levels[:, column] = level
    return levels


@pytest.mark.parametrize("size", [64, 192])  # one block of columns; one and a half
def test_feedback_chooses_the_levels_of_gptq(size: int) -> None:
    """By another way to the same levels, but for ties that float32 decides otherwise."""
    moments = inputs_that_go_together(size, 400)
    weight = torch.randn(48, size, generator=torch.Generator().manual_seed(3))
    on_grid = round_clipped(weight, moments.gram, 64)
    published = levels_by_gptq(weight, on_grid, moments.gram)
    found = round_with_feedback(weight, on_grid, moments.gram).q.flatten(1)
    assert (published != on_grid.q.flatten(1)).float().mean() > 0.1
    assert (found == published).float().mean() > 0.99


def test_linears_that_read_the_same_inputs() -> None:
    """Are gone through together, and each gets the levels it would get alone."""
    moments = inputs_that_go_together(128, 400)
    weight = torch.randn(64, 128, generator=torch.Generator().manual_seed(4))
    parts = (weight[:24], weight[24:])
    together, *alone = (
        round_with_feedback(each, round_clipped(each, moments.gram, GROUP), moments.gram)
        for each in (weight, *parts)
    )
    for mine, own in zip(together.split([24, 40]), alone, strict=True):
        assert torch.equal(mine.scales, own.scales) and torch.equal(mine.zeros, own.zeros)
        assert (mine.q == own.q).float().mean() > 0.999


@pytest.mark.parametrize(("device", "meanwhile"), [("cuda:0", "tf32"), ("cpu", None)])
def test_products_are_coarse_on_a_gpu_alone(device: str, meanwhile: str | None) -> None:
    """And only while levels are searched, however that ends."""
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    with pytest.raises(OSError, match="full"), coarse_products(device):
        assert matmul.fp32_precision == (meanwhile or before)
        raise OSError("full")
    assert matmul.fp32_precision == before


@settings(max_examples=40, deadline=None)
@given(case=weights(), seed=st.integers(0, 100))
def test_the_search_never_does_harm(case: tuple[Tensor, int], seed: int) -> None:
    """On the inputs it was shown, its result is no worse than plain rounding."""
    weight, group = case
    moments = Moments(weight.shape[1], torch.device("cpu"))
    x = torch.randn(40, weight.shape[1], generator=torch.Generator().manual_seed(seed))
    moments.add(x, torch.full((40,), 1 / 40))
    plain = relative_error(weight, round_plainly(weight, group), moments.gram)
    on_grid = round_clipped(weight, moments.gram, group)
    clipped = relative_error(weight, on_grid, moments.gram)
    assert clipped <= plain * (1 + 1e-4) + 1e-6
    shifted = round_with_feedback(weight, on_grid, moments.gram)
    assert relative_error(weight, shifted, moments.gram) <= clipped * (1 + 1e-4) + 1e-6
    assert ((shifted.q >= 0) & (shifted.q <= 15) & (shifted.q == shifted.q.round())).all()
    scale = find_scale([weight], moments, group)
    rounded = round_plainly(weight * scale, group)
    smoothed = relative_error(weight * scale, rounded, moments.scaled_gram(scale))
    assert smoothed <= plain * (1 + 1e-3) + 1e-6
    assert torch.isfinite(scale).all() and (scale > 0).all()


def test_moments_over_a_layer(tmp_path: Path) -> None:
    """What is gathered is the mean over all rows; words and pictures weigh the same."""
    source = Source(write_tiny_checkpoint(tmp_path))
    passages = tiny_passages()
    of_rows = row_weights(passages, torch.device("cpu"))
    num_image = passages[-1].num_image_tokens
    assert sum(float(rows.sum()) for rows in of_rows) == pytest.approx(1)
    assert float(of_rows[-1][:num_image].sum()) == pytest.approx(0.5)
    moments = Calibration(Walk(source, passages)).watch_layer(0)
    for name, size in (("wqkv", 64), ("wo", 64), ("gate_and_up", 64), ("w2", 96)):
        seen: Moments = getattr(moments, name)
        assert seen.gram.shape == (size, size)
        torch.testing.assert_close(seen.gram, seen.gram.t())
        assert (seen.mean_abs.square() <= seen.gram.diagonal() * (1 + 1e-5)).all()


def with_outliers(folder: Path) -> Path:
    """A model whose norms make a few channels large, as trained ones have them."""
    source = write_tiny_checkpoint(folder, GROUPED)
    tensors = tiny_tensors(GROUPED)
    for layer in range(GROUPED.layers):
        for norm in ("attention_norm", "ffn_norm"):
            tensors[f"model.layers.{layer}.{norm}.weight"][::29] *= 12
    write_shards(source, tensors, shards=2)
    return source


def drift(source: Path, folder: Path, **wishes: Any) -> QualityFigures:
    output, model = FolderOutput(folder), Source(source)
    quantize_over(
        tiny_passages(), model, output, QuantizeSettings(group_size=GROUP, **wishes), Notes()
    )
    return measure_quality_over(tiny_passages(), model, Source(output.folder), "cpu", Notes())


def test_the_search_beats_plain_rounding(tmp_path: Path) -> None:
    """By far, where a few channels carry most; and compensation is what saves the pictures."""
    source = with_outliers(tmp_path / "source")
    plain = drift(source, tmp_path / "plain", method=QuantizeMethod.RTN)
    searched = drift(source, tmp_path / "searched")
    uncompensated = drift(source, tmp_path / "uncompensated", compensate_adapters=False)
    assert searched.text.mean_kl < 0.7 * plain.text.mean_kl
    assert plain.image is not None and searched.image is not None
    assert searched.image.mean_kl < 0.7 * plain.image.mean_kl
    assert uncompensated.image is not None
    assert uncompensated.image.mean_kl > 2 * searched.image.mean_kl


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_quantised_folder_is_a_model(tmp_path: Path, dtype: str) -> None:
    """It loads with its adapters and tower; what is not rounded has the dtype asked for."""
    source = write_tiny_checkpoint(tmp_path / "source", GROUPED)
    output = FolderOutput(tmp_path / "quantised")
    wishes = QuantizeSettings(group_size=GROUP, dtype=dtype)
    notes = Notes()
    summary = quantize_over(tiny_passages(), Source(source), output, wishes, notes)
    model = load_model(output.folder)
    assert model.adapters == {"web", "write"} and model.has_images
    assert model.config.quantization is not None
    assert (model.config.quantization.group_size, model.config.torch_dtype) == (GROUP, dtype)
    stored = {
        name: tensor
        for path in output.folder.glob("*.safetensors")
        for name, tensor in load_file(path).items()
    }
    kinds = {"qweight": torch.int32, "qzeros": torch.int32, "scales": torch.float16}
    for name, tensor in stored.items():
        assert tensor.dtype == kinds.get(name.rpartition(".")[2], getattr(torch, dtype)), name
    assert summary.num_bytes == sum(tensor.nbytes for tensor in stored.values())
    assert summary.relative_error is not None and 0 < summary.relative_error < 0.2
    assert len(notes.metrics) == 2 * 5
    assert [item for item in notes.items if "layers" in item[0]] == [
        ("model.layers.0", 1, 2),
        ("model.layers.1", 2, 2),
    ]


@pytest.mark.parametrize("method", list(QuantizeMethod))
def test_interrupted_at_every_shard(tmp_path: Path, method: QuantizeMethod) -> None:
    """A second run rounds only what is missing, to the bytes of a run in one go."""
    source = Source(write_tiny_checkpoint(tmp_path / "source", GROUPED, layers=3))
    wishes = QuantizeSettings(method=method, group_size=GROUP)
    whole = FolderOutput(tmp_path / "whole")
    quantize_over(tiny_passages(), source, whole, wishes, Notes())
    for number, shard in enumerate(whole.written):
        folder = tmp_path / f"interrupted {number}"
        with pytest.raises(OSError, match="No space"):
            failing = FolderOutput(folder, fail_at=shard)
            quantize_over(tiny_passages(), source, failing, wishes, Notes())
        again = FolderOutput(folder)
        summary = quantize_over(tiny_passages(), source, again, wishes, Notes())
        assert summary.num_resumed_layers == min(number, 3)
        assert again.written == whole.written[number:]
        assert digests(folder) == digests(whole.folder)


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], type[RuntimeFault], str]] = {
    "a group that does not divide": (
        {},
        {"group_size": 128},
        FieldInvalid,
        r"wqkv is 128 x 64: groups of 128 .* that divide: \[32, 64\]",
    ),
    "a group that does not divide w2 alone": (
        {"intermediate": 96},
        {"group_size": 64},
        FieldInvalid,
        r"w2 is 64 x 96",
    ),
    "a group nobody reads": ({}, {"group_size": 48}, FieldInvalid, "group_size is 48"),
    "float32 kept": ({}, {"group_size": 32, "dtype": "float32"}, FieldInvalid, "float32"),
    "rounded already": (
        {"hidden": 128, "heads": 4, "intermediate": 128, "awq_group": 64},
        {"group_size": 64},
        CheckpointUnsupported,
        "int4 already",
    ),
}


@pytest.mark.parametrize(("sizes", "wishes", "fault", "named"), REFUSED.values(), ids=REFUSED)
def test_refused_before_anything_is_written(
    tmp_path: Path,
    sizes: dict[str, Any],
    wishes: dict[str, Any],
    fault: type[RuntimeFault],
    named: str,
) -> None:
    """The tensor and the figures are named."""
    source = Source(write_tiny_checkpoint(tmp_path / "source", **sizes))
    output = FolderOutput(tmp_path / "quantised")
    with pytest.raises(fault, match=named):
        quantize_over(tiny_passages(), source, output, QuantizeSettings(**wishes), Notes())
    assert not list(output.folder.iterdir())


@pytest.mark.parametrize(
    ("name", "value", "named"),
    [
        ("model.layers.1.attention.wo.weight", float("nan"), "1 of 16384 values are not finite"),
        ("model.layers.1.feed_forward.w2.Plora_A.weight", float("inf"), "not finite"),
        ("output.weight", 1e6, r"value of 1e\+06; float16 ends at 65504"),
    ],
)
@pytest.mark.parametrize("method", list(QuantizeMethod))
def test_broken_weights(
    tmp_path: Path, name: str, value: float, named: str, method: QuantizeMethod
) -> None:
    """NaN, infinity, and what float16 cannot hold: refused by name."""
    source = write_tiny_checkpoint(tmp_path / "source", GROUPED)
    tensors = tiny_tensors(GROUPED)
    tensors[name][0, 0] = value
    write_shards(source, tensors, shards=2)
    with pytest.raises(CheckpointInvalid, match=named) as refused:
        quantize_over(
            tiny_passages(),
            Source(source),
            FolderOutput(tmp_path / "quantised"),
            QuantizeSettings(group_size=GROUP, method=method),
            Notes(),
        )
    assert refused.value.metadata["tensor"] == name
