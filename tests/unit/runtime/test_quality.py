"""Comparing models layer by layer, and the samples that they are compared with."""

import io
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from ixc_runtime.errors import (
    CheckpointMissing,
    FieldInvalid,
    MediaTypeUnsupported,
    MediaUndecodable,
    PromptEmpty,
    QualityTooLow,
)
from ixc_runtime.jobs import MergeWork
from ixc_runtime.jobs.verdict import require_agreement
from ixc_runtime.model.loader import load_model
from ixc_runtime.weights import MergeSettings, ProbeSettings, QuantizeSettings, Sample
from ixc_runtime.weights.awq import quantize
from ixc_runtime.weights.calibration import (
    calibration_samples,
    held_out_samples,
    lay_out_samples,
)
from ixc_runtime.weights.merge import merge
from ixc_runtime.weights.quality import (
    check_merged,
    check_merged_over,
    measure_quality,
    measure_quality_over,
)
from ixc_runtime.weights.source import Source
from ixc_runtime.weights.walk import Passage, Predictions, Walk
from tests.fakes.step_driver import IMAGE_TOKEN, Lane, StepDriver
from tests.fakes.tiny_checkpoint import TinyModel, write_tiny_checkpoint
from tests.fakes.tiny_tokenizer import CHATML_ROLES, write_tokenizer_json
from tests.fakes.weights_work import FolderOutput, Notes, tiny_passages

VOCAB = 700
SPEAKING = TinyModel(
    hidden=128,
    heads=4,
    intermediate=128,
    vocab=VOCAB,
    settings={"roles": CHATML_ROLES, "hd_num": {"single": 4, "max": 36}},
)


def speaking(folder: Path, **sizes: Any) -> Path:
    """A tiny model with a tokenizer."""
    write_tiny_checkpoint(folder, SPEAKING, **sizes)
    write_tokenizer_json(folder, vocab_size=VOCAB)
    return folder


@pytest.mark.parametrize("adapter", ["base", "web", "write"])
def test_walked_as_served(tmp_path: Path, adapter: str) -> None:
    """Layer by layer or all at once: the same logits, adapters and pictures included."""
    source = write_tiny_checkpoint(tmp_path)
    passages = tiny_passages(adapter=adapter)
    walk = Walk(Source(source), passages)
    walk.enter()
    for layer in range(2):
        walk.run_all(walk.read_layer(layer))
    predictions = walk.leave()
    model = load_model(source)
    for number, passage in enumerate(passages):
        lane = Lane(
            tokens=[IMAGE_TOKEN if token < 0 else token for token in passage.token_ids],
            features=features(model, passage),
            adapter=adapter,
        )
        served = StepDriver(model).step((lane, lane.left))[0][passage.judged]
        torch.testing.assert_close(predictions.logits(number), served, rtol=1e-4, atol=1e-4)


def features(model: Any, passage: Passage) -> torch.Tensor | None:
    if not passage.canvases:
        return None
    encoded = model.vision.encode_tiles(model.vision.cut(passage.canvases[0]))
    return model.vision.assemble(encoded, 1, 1)


def test_a_model_beside_itself(tmp_path: Path) -> None:
    """No drift at all; the perplexity is what the definition says."""
    source = Source(write_tiny_checkpoint(tmp_path))
    passages = tiny_passages()
    figures = measure_quality_over(passages, source, source, "cpu", Notes())
    assert figures.image is not None
    for part in (figures.text, figures.image):
        assert (part.mean_kl, part.max_kl, part.top1_agreement) == (0.0, 0.0, 1.0)
        assert part.perplexity_ratio == 1.0
    assert (figures.text.positions, figures.image.positions) == (39 + 22, 19)
    lanes = [Lane(tokens=list(passage.token_ids)) for passage in passages[:2]]
    driver = StepDriver(load_model(tmp_path))
    losses = [
        torch.nn.functional.cross_entropy(
            logits[:-1], torch.tensor(lane.tokens[1:]), reduction="sum"
        )
        for lane in lanes
        for logits in driver.step((lane, lane.left))
    ]
    expected = math.exp(float(sum(losses)) / (39 + 22))
    assert figures.text.source_perplexity == pytest.approx(expected, rel=1e-4)


def test_drift_of_another_model(tmp_path: Path) -> None:
    """Divergence is that of the candidate from the source, position by position."""
    source, other = (
        write_tiny_checkpoint(tmp_path / name, rms_eps=eps)
        for name, eps in (("source", 1e-5), ("other", 0.3))
    )
    passages = tiny_passages()[:1]
    figures = measure_quality_over(passages, Source(source), Source(other), "cpu", Notes())
    tokens = list(passages[0].token_ids)
    p, q = (
        StepDriver(load_model(folder)).step((Lane(tokens=tokens), 40))[0][:-1].log_softmax(-1)
        for folder in (source, other)
    )
    kl = (p.exp() * (p - q)).sum(-1)
    assert figures.image is None
    assert figures.text.mean_kl == pytest.approx(float(kl.mean()), rel=1e-3)
    assert figures.text.max_kl == pytest.approx(float(kl.max()), rel=1e-3)
    agreeing = (p.argmax(-1) == q.argmax(-1)).float().mean()
    assert figures.text.top1_agreement == pytest.approx(float(agreeing))


def test_from_folder_to_figures(tmp_path: Path) -> None:
    """Merge, check, quantise and measure, each over the built-in samples."""
    source = speaking(tmp_path / "source")
    merged, quantised = FolderOutput(tmp_path / "merged"), FolderOutput(tmp_path / "quantised")
    settings = MergeSettings(task="web")
    merge(source, merged, settings, Notes())
    agreement = check_merged(source, merged.folder, settings, Notes())
    require_agreement(agreement, MergeWork(task="web"))
    assert agreement.image is not None
    notes = Notes()
    summary = quantize(source, quantised, QuantizeSettings(group_size=64), notes)
    assert summary.calibration_text_tokens > 1000 and summary.calibration_image_tokens > 100
    assert notes.stages == [("layers", 0, 2), ("rest", 1, 2)]
    figures = measure_quality(source, quantised.folder, ProbeSettings(), Notes())
    assert figures.image is not None
    assert 0 < figures.text.mean_kl < 1
    assert 0 < figures.image.mean_kl < 1
    assert (quantised.folder / "tokenizer.json").is_file()


def test_a_model_without_a_tower(tmp_path: Path) -> None:
    """Built-in pictures are left out; a caller's own are refused."""
    source = speaking(tmp_path / "source", tower=None, ranks={"lora_web": 4})
    output = FolderOutput(tmp_path / "quantised")
    summary = quantize(source, output, QuantizeSettings(group_size=64), Notes())
    assert summary.calibration_image_tokens == 0
    assert measure_quality(source, output.folder, ProbeSettings(), Notes()).image is None
    picture = Sample(text="What?", answer="That.", image=tmp_path / "picture.png")
    with pytest.raises(FieldInvalid, match="no tower"):
        lay_out_samples(Source(source), [picture], max_tokens=64)


def test_a_merged_model_that_answers_no_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At one position of many: the figures say so, and do not pass over it."""
    source = Source(write_tiny_checkpoint(tmp_path))
    asked: list[int] = []
    sound = Predictions.logits

    def spoilt(self: Predictions, passage: int) -> torch.Tensor:
        logits = sound(self, passage).clone()
        asked.append(passage)
        if asked == [0, 0]:  # the second to answer the first passage
            logits[3, 5] = math.nan
        return logits

    monkeypatch.setattr(Predictions, "logits", spoilt)
    settings = MergeSettings(task="web")
    figures = check_merged_over(tiny_passages(), source, source, settings, Notes())
    assert len(asked) > 4 and math.isnan(figures.text.max_difference)
    with pytest.raises(QualityTooLow, match="max_relative_difference on texts is nan"):
        require_agreement(figures, MergeWork(task="web", min_top1_agreement=0.0))


def test_held_out_is_held_out() -> None:
    """No text and no picture is in both sets; the same samples are drawn every time."""
    first, again = (held_out_samples(with_images=True) for _ in range(2))
    calibrated = calibration_samples(with_images=True)
    assert {sample.text for sample in first if not sample.image}.isdisjoint(
        {sample.text for sample in calibrated if not sample.image}
    )
    pixels = [
        {sample.image.tobytes() for sample in samples if isinstance(sample.image, Image.Image)}
        for samples in (first, again, calibrated)
    ]
    assert pixels[0] == pixels[1]
    assert pixels[0].isdisjoint(pixels[2])
    assert len(pixels[0]) >= 12 and len(pixels[2]) >= 12


def test_layout_of_samples(tmp_path: Path) -> None:
    """Long texts are cut into windows, chats judge their answers, absent adapters fall to base."""
    source = Source(speaking(tmp_path / "source", ranks={"Plora": 4, "lora_web": 4}))
    samples = [
        Sample(text="The harbour was quiet. " * 40, adapter="web"),
        Sample(text="What is this?", answer="A cat.", adapter="write"),
        Sample(text="What is this?", answer="A cat.", image=Image.new("RGB", (100, 50))),
    ]
    *windows, chat, picture = lay_out_samples(source, samples, max_tokens=50)
    assert len(windows) > 2
    assert {len(window.token_ids) for window in windows[:-1]} == {50}
    assert all(window.adapter == "web" for window in windows)
    assert all(len(window.targets) == len(window.token_ids) - 1 for window in windows)
    assert (chat.adapter, picture.adapter) == ("base", "base")
    assert chat.targets == picture.targets == chat.token_ids[-len(chat.targets) :]
    assert picture.num_image_tokens > 0 and picture.token_ids[0] == -1
    assert picture.num_text_tokens == len(chat.token_ids)
    long = Sample(text="The harbour was quiet. " * 400, answer="A cat sat there. " * 400)
    (chat,) = lay_out_samples(source, [long], max_tokens=50)
    assert 40 < len(chat.token_ids) < 70  # the words, and what makes them turns
    assert len(chat.targets) == 26  # half of the words, and the end of the turn


def encoded(image_format: str) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (90, 60), (200, 30, 30)).save(stream, image_format)
    return stream.getvalue()


def test_picture_files(tmp_path: Path) -> None:
    """Users' files are decoded by a confined worker; what is no picture is refused as such."""
    source = Source(speaking(tmp_path / "source"))
    path = tmp_path / "picture"

    def passages() -> tuple[Passage, ...]:
        sample = Sample(text="What?", answer="Red.", image=path)
        return lay_out_samples(source, [sample], max_tokens=64)

    path.write_bytes(encoded("PNG"))
    (passage,) = passages()
    assert passage.canvases[0].shape == (56 * 2, 56 * 2, 3)
    assert passage.canvases[0][0, 0].tolist() == [200, 30, 30]
    path.write_bytes(encoded("PNG")[:60])
    with pytest.raises(MediaUndecodable):
        passages()
    path.write_bytes(b"GNU nano")
    with pytest.raises(MediaTypeUnsupported):
        passages()


def test_samples_that_cannot_be(tmp_path: Path) -> None:
    """A picture without words, nothing at all, and a model that cannot read."""
    source = Source(speaking(tmp_path / "source"))
    with pytest.raises(FieldInvalid, match="needs a text and an answer"):
        lay_out_samples(source, [Sample(text="a", image=Path("a"))], max_tokens=64)
    with pytest.raises(PromptEmpty):
        lay_out_samples(source, [Sample(text="")], max_tokens=64)
    with pytest.raises(FieldInvalid, match="no text"):
        only_pictures = (Sample(text="a", answer="b", image=Image.new("RGB", (9, 9))),)
        measure_quality(source.folder, source.folder, ProbeSettings(samples=only_pictures), Notes())
    silent = Source(write_tiny_checkpoint(tmp_path / "silent"))
    with pytest.raises(CheckpointMissing, match="tokenizer"):
        lay_out_samples(silent, [Sample(text="a b c")], max_tokens=64)
