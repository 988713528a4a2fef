"""Training of the adapters, on a language model of toy size."""

import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from safetensors.numpy import load_file

from models.demo.training.batches import IGNORED, STRESS, Batch, Framer, Length
from models.demo.training.export import export_vision, load_vision
from models.demo.training.language import load_language
from models.demo.training.loop import next_token_loss
from models.demo.training.model import DemoModel
from models.demo.training.sizes import RANKS
from models.demo.writing import train_adapters
from models.demo.writing.drafts import write_bank
from models.demo.writing.lessons import (
    INVENTED_COLOURS_SHARE,
    ArticleLessons,
    LessonBatches,
    PreferenceLessons,
    WebLessons,
)
from models.demo.writing.pages import draw_page
from models.demo.writing.preference import AnswerScores, preference_loss, score_answers
from models.demo.writing.sampling import Sampling, answers, llama_with
from models.demo.writing.titles import all_paragraphs
from tests.fakes.drafted_bank import drafted_bank
from tests.fakes.tiny_gguf import write_tiny_gguf
from tests.fakes.tiny_tokenizer import write_tokenizer_json
from tests.fakes.tiny_trained import tiny_demo

# The toy's tokens are bytes.
LENGTHS = (Length(tokens=1664, batch=4),)
BANK = drafted_bank()


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    return write_tokenizer_json(tmp_path)


@pytest.fixture
def model(tmp_path: Path) -> DemoModel:
    write_tiny_gguf(tmp_path / "tiny.gguf")
    return tiny_demo(tmp_path / "tiny.gguf")


@pytest.fixture
def framer(tmp_path: Path, model: DemoModel) -> Framer:
    from ixc_runtime.checkpoint.gguf_llama import LlamaGguf

    LlamaGguf(tmp_path / "tiny.gguf").write_tokenizer(tmp_path / "toy.json")
    return Framer(tmp_path / "toy.json")


def learnt(batch: Batch, row: int, framer: Framer) -> str:
    length = batch.token_ids.shape[1]
    mine = batch.positions // length == row
    return framer.decode(batch.targets[mine].tolist())


def first_batches(lessons: LessonBatches, count: int) -> list[Batch]:
    return list(islice(iter(lessons), count))


def test_pages_are_learnt_to_their_end(tokenizer: Path) -> None:
    """Instructions and screenshots are given; the page and its end of turn are learnt."""
    lessons = WebLessons(tokenizer_file=tokenizer, lengths=LENGTHS, screenshot_share=0.5)
    (batch,) = first_batches(LessonBatches(lessons), 1)
    framer = Framer(tokenizer)
    assert set(batch.tasks) == {"page", "screenshot"}
    assert batch.image is not None
    for row in range(len(batch.tasks)):
        text = learnt(batch, row, framer)
        assert text.startswith("<!DOCTYPE html>")
        assert text.removesuffix("<|im_end|>").endswith("</html>")
    ends = batch.targets == framer.end
    assert ends.sum() == len(batch.tasks)


def test_the_colours_that_were_asked_for_count_more(tokenizer: Path) -> None:
    """They are a few tokens of a page, and what an instruction is not to be mistaken in."""
    lessons = WebLessons(tokenizer_file=tokenizer, lengths=LENGTHS, screenshot_share=0)
    framer = Framer(tokenizer)
    drawn = (draw_page(seed, invented_share=INVENTED_COLOURS_SHARE) for seed in range(20))
    wishes = {example.html: example.wishes for example in drawn}
    (batch,) = first_batches(LessonBatches(lessons), 1)
    for row in range(len(batch.tasks)):
        asked = wishes[learnt(batch, row, framer).removesuffix("<|im_end|>")].colours
        mine = (batch.positions // LENGTHS[0].tokens == row) & (batch.weights == STRESS)
        stressed = framer.decode(batch.targets[mine].tolist())
        assert stressed == "".join(f": {colour};" for _, colour in asked)


def test_articles_are_learnt_to_their_end(tokenizer: Path) -> None:
    """A title in some words, then the article in Markdown."""
    lessons = ArticleLessons(tokenizer_file=tokenizer, lengths=LENGTHS, bank=BANK)
    (batch,) = first_batches(LessonBatches(lessons), 1)
    framer = Framer(tokenizer)
    assert batch.image is None
    assert all(learnt(batch, row, framer).startswith("# ") for row in range(4))
    assert (batch.targets == framer.end).sum() == 4


def test_preferences_come_in_pairs(tokenizer: Path) -> None:
    """A good article, then a bad one to the same request; only the endless has no end."""
    lessons = PreferenceLessons(tokenizer_file=tokenizer, lengths=LENGTHS, bank=BANK)
    framer = Framer(tokenizer)
    faults = set()
    for batch in first_batches(LessonBatches(lessons), 8):
        assert batch.tasks[0::2] == ("good", "good")
        for row in (0, 2):
            asked = [batch.token_ids[one].tolist() for one in (row, row + 1)]
            prompts = [framer.decode(ids).split("assistant\n")[0] for ids in asked]
            assert prompts[0] == prompts[1]
            mine = batch.targets[batch.positions // LENGTHS[0].tokens == row + 1]
            endless = batch.tasks[row + 1] == "endless"
            assert (framer.end in mine) == (not endless)
        faults |= set(batch.tasks[1::2])
    assert faults == {"repeating", "endless", "unheaded", "off topic"}


def test_workers_share_the_seeds(tokenizer: Path) -> None:
    """A later first seed gives other lessons."""
    lessons = [
        WebLessons(tokenizer_file=tokenizer, lengths=LENGTHS, screenshot_share=0, first_seed=seed)
        for seed in (0, 4)
    ]
    one, other = (first_batches(LessonBatches(each), 2) for each in lessons)
    assert one[1].token_ids.equal(other[0].token_ids)
    assert not one[0].token_ids.equal(other[0].token_ids)


def test_a_few_steps(model: DemoModel, framer: Framer, tmp_path: Path) -> None:
    """Lower the loss, by the one adapter alone."""
    lessons = WebLessons(
        tokenizer_file=tmp_path / "toy.json", lengths=LENGTHS, screenshot_share=0.0
    )
    batch = next(iter(LessonBatches(replace(lessons, lengths=(replace(LENGTHS[0], batch=1),)))))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimiser = torch.optim.AdamW(model.adapters["lora_web"].parameters(), lr=0.03)
    losses = []
    for _ in range(8):
        loss = next_token_loss(model, model.hidden(batch.token_ids, ("lora_web",)), batch)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    changed = {name for name, value in model.state_dict().items() if not value.equal(before[name])}
    assert changed
    assert all(name.startswith("adapters.lora_web.") for name in changed)


def test_preference_training(model: DemoModel, framer: Framer, tmp_path: Path) -> None:
    """Widens the margin of the good over the bad, against a policy that stays as it is."""
    lessons = PreferenceLessons(tokenizer_file=tmp_path / "toy.json", lengths=LENGTHS, bank=BANK)
    (batch,) = first_batches(LessonBatches(lessons), 1)

    def score(*adapters: str) -> AnswerScores:
        return score_answers(model, model.hidden(batch.token_ids, adapters), batch)

    @torch.no_grad()
    def margin() -> float:
        gain = score("lora_sft", "lora_dpo").log_probs - reference.log_probs
        return float((gain[0::2] - gain[1::2]).mean())

    with torch.no_grad():
        reference = score("lora_sft")
    before = margin()
    optimiser = torch.optim.AdamW(model.adapters["lora_dpo"].parameters(), lr=0.003)
    for _ in range(8):
        preference_loss(score("lora_sft", "lora_dpo"), reference).backward()
        optimiser.step()
        optimiser.zero_grad()
    assert margin() > before + 1
    assert score("lora_sft").log_probs.equal(reference.log_probs)


def test_scores_are_sums_over_rows(model: DemoModel, framer: Framer, tmp_path: Path) -> None:
    """Of the log probabilities of what is learnt, and of nothing else."""
    lessons = ArticleLessons(tokenizer_file=tmp_path / "toy.json", lengths=LENGTHS, bank=BANK)
    (batch,) = first_batches(LessonBatches(lessons), 1)
    with torch.no_grad():
        hidden = model.hidden(batch.token_ids)
        scores = score_answers(model, hidden, batch)
        wide = model.logits(hidden).log_softmax(-1)
    labels = torch.full(batch.token_ids.shape, IGNORED).flatten()
    labels[batch.positions] = batch.targets
    for row, mine in enumerate(labels.view(batch.token_ids.shape)):
        places = (mine != IGNORED).nonzero()[:, 0]
        expected = wide[row, places, mine[places]].sum()
        assert scores.log_probs[row].item() == pytest.approx(expected.item(), rel=1e-4)
        assert scores.counts[row] == len(places)


def test_sampling_is_the_model_that_is_trained(model: DemoModel, framer: Framer) -> None:
    """Greedy answers with merged adapters are those of the differentiable model, alone or not."""
    adapters = ("lora_sft", "lora_dpo")
    modules = [model.adapters[name] for name in adapters]
    with torch.no_grad():
        llama = llama_with(model.language, modules)
    prompts = ["A cat", "Two dogs and a kite", "Sea"]
    given = answers(llama, framer, prompts, Sampling(max_tokens=6, batch=2))

    for prompt, answer in zip(prompts, given, strict=True):
        ids = list(framer.chat([(prompt, "")]).ids[:-2])
        start = len(ids)
        with torch.no_grad():
            for _ in range(6):
                hidden = model.hidden(torch.tensor([ids]), adapters)
                ids.append(int(model.logits(hidden[0, -1]).argmax()))
                if ids[-1] == framer.end:
                    break
        assert answer.stopped == (ids[-1] == framer.end)
        assert answer.text == framer.decode(ids[start : start + 6 - answer.stopped]).strip()


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs stages for some steps; returns their folder."""
    write_tiny_gguf(tmp_path / "tiny.gguf")
    for name in ("WEB_LENGTHS", "ARTICLE_LENGTHS", "PREFERENCE_LENGTHS"):
        monkeypatch.setattr(train_adapters, name, LENGTHS)
    monkeypatch.setattr(train_adapters, "JUDGED_TOKENS", 16)
    monkeypatch.setattr(train_adapters, "all_paragraphs", lambda: all_paragraphs()[:4])

    def run(*stages: str) -> Path:
        out = tmp_path / "out"
        command = [
            *("train_adapters", *stages, "--gguf", str(tmp_path / "tiny.gguf")),
            *("--out", str(out), "--seconds", "0.1", "--workers", "0", "--judged", "2"),
            *("--samples", "1", "--batch-divisor", "2"),
        ]
        monkeypatch.setattr(sys, "argv", command)
        train_adapters.main()
        return out

    return run


def test_all_stages(train, capsys: pytest.CaptureFixture[str]) -> None:
    """Drafting, the three adapters and their judging, each from what the one before left."""
    out = train("draft", "web")
    assert "no screenshots" in capsys.readouterr().out
    write_bank(BANK, out / "bank.json")  # the toy writes nothing that can be used
    train("sft")
    first = load_file(out / "write.safetensors")
    train("dpo", "judge")
    then = load_file(out / "write.safetensors")

    assert all("lora_web" in name for name in load_file(out / "web.safetensors"))
    assert all("lora_sft" in name for name in first)
    assert all((first[name] == then[name]).all() for name in first)
    assert any("lora_dpo_B" in name and array.any() for name, array in then.items())
    printed = capsys.readouterr().out
    for line in ("web, 2 unseen", "lora_sft, 2 unseen", "lora_sft + lora_dpo, 2 unseen"):
        assert line in printed


def test_preferences_without_a_policy(train) -> None:
    """Are refused: there is nothing to improve on."""
    with pytest.raises(SystemExit, match="no sft checkpoint"):
        train("dpo")


def test_a_trained_sight(train, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Is taken as it is shipped, adds screenshots to the lessons, and stays as it is."""
    cpu = torch.device("cpu")
    language = load_language(tmp_path / "tiny.gguf", device=cpu, dtype=torch.float32)
    trained, fresh = DemoModel(language, RANKS), DemoModel(language, RANKS)
    (tmp_path / "out").mkdir()
    export_vision(trained, tmp_path / "out")
    load_vision(fresh, tmp_path / "out" / "vision.safetensors")
    for (name, value), other in zip(
        trained.vision.state_dict().items(), fresh.vision.state_dict().values(), strict=True
    ):
        assert value.half().equal(other.half()), name

    train("web")
    assert "no screenshots" not in capsys.readouterr().out
