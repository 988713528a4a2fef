"""Promises of drawn examples as a whole: repeatable, fair, within their budget."""

import hashlib
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from models.demo.drawing import (
    EVALUATION_SEEDS,
    JUDGED_TASKS,
    MIX,
    TASKS,
    TRAINING_SEEDS,
    Example,
    draw,
    draw_mixed,
)
from models.demo.drawing.__main__ import contact_sheet
from models.demo.drawing.assets import unseen_words, words
from models.demo.drawing.conversation import turn_tokens

ROOT = Path(__file__).parents[3]
tasks = st.sampled_from(TASKS)
seeds = st.integers(0, 2**41 - 1)


def digest(example: Example) -> str:
    told = hashlib.sha256(repr((example.task, example.caption)).encode())
    for turn in example.turns:
        rivals = sorted(turn.expectation.rivals) if turn.expectation else []
        told.update(repr((turn.question, turn.answer, rivals)).encode())
    for picture in (*example.pictures, *example.frames):
        told.update(repr(picture.size).encode() + picture.tobytes())
    return told.hexdigest()


@given(task=tasks, seed=seeds)
@settings(max_examples=60, deadline=None)
def test_same_seed_twice(task: str, seed: int) -> None:
    """A task and a seed give the same pixels and texts each time, whatever was drawn between."""
    first = digest(draw(task, seed))
    draw_mixed(seed + 1)
    assert digest(draw(task, seed)) == first


def test_same_seed_in_another_process() -> None:
    """Nothing depends on a process's hash seed or on what it drew before."""
    code = (
        "from tests.unit.models.test_drawing import digest\n"
        "from models.demo.drawing import TASKS, draw\n"
        "print(*(digest(draw(t, s)) for t in TASKS for s in (3, 2)))"
    )
    path = os.pathsep.join([str(ROOT), *(entry for entry in sys.path if entry)])
    env = {**os.environ, "PYTHONHASHSEED": "77", "PYTHONPATH": path}
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == [digest(draw(task, seed)) for task in TASKS for seed in (3, 2)]


@given(task=tasks, seed=seeds)
@settings(max_examples=150, deadline=None)
def test_own_answer_is_accepted(task: str, seed: int) -> None:
    """What the model is trained to say is judged right, also in capitals."""
    for turn in draw(task, seed).turns:
        if turn.expectation:
            assert turn.expectation.accepts(turn.answer), turn
            assert turn.expectation.accepts(turn.answer.upper()), turn


@pytest.mark.parametrize(
    ("task", "most"),
    [("colour", 0.25), ("shape", 0.25), ("count", 0.3), ("place", 0.25), ("word", 0.02),
     ("word_unseen", 0.05), ("compare", 0.62), ("direction", 0.38), ("none", 0.58)],
)  # fmt: skip
def test_answers_of_other_pictures_are_refused(task: str, most: float) -> None:
    """Answers dealt to the wrong questions of a judged task fall to chance."""
    firsts = [draw(task, seed).turns[0] for seed in EVALUATION_SEEDS[:150]]
    expectations = [turn.expectation for turn in firsts]
    answers = [turn.answer for turn in firsts[1:] + firsts[:1]]
    right = sum(e is not None and e.accepts(a) for e, a in zip(expectations, answers, strict=True))
    assert right / len(firsts) <= most


@pytest.mark.parametrize("task", JUDGED_TASKS)
def test_judged_tasks_begin_with_their_question(task: str) -> None:
    """The first turn can always be judged, so a task's score is about the task."""
    for seed in range(20):
        assert draw(task, seed).turns[0].expectation


def test_denying_is_right_half_of_the_time() -> None:
    """The task "none" cannot be won by denying whatever is asked for."""
    firsts = [draw("none", seed).turns[0] for seed in range(200)]
    denied = sum(" no " in turn.answer for turn in firsts)
    assert 0.4 <= denied / len(firsts) <= 0.6


@given(seed=seeds)
@settings(max_examples=120, deadline=None)
def test_shape_of_an_example(seed: int) -> None:
    """RGB pictures or a clip, one to four turns, one-line texts, and tokens within the budget."""
    example = draw_mixed(seed)
    pictures = example.pictures or example.frames
    assert pictures
    assert bool(example.pictures) != bool(example.frames)
    assert all(picture.mode == "RGB" for picture in pictures)
    assert len(example.pictures) <= 3
    assert 4 <= len(example.frames) <= 8 or not example.frames
    assert len({frame.size for frame in example.frames}) <= 1
    assert 1 <= len(example.turns) <= 4
    assert sum(map(turn_tokens, example.turns)) <= 100
    assert example.caption
    for turn in example.turns:
        assert "\n" not in turn.question + turn.answer
        assert turn.answer.endswith(".")


@pytest.mark.demo
def test_token_budget_holds_for_the_real_tokenizer(demo_model: Path) -> None:
    """The estimate is never below what SmolLM2's tokenizer makes; captions take 60 at most."""
    tokenizer = Tokenizer.from_file(str(demo_model / "tokenizer.json"))

    def tokens(text: str) -> int:
        return len(tokenizer.encode(text, add_special_tokens=False).ids)

    spent, turns = 0, 0
    for task in TASKS:
        for seed in range(60):
            example = draw(task, seed)
            assert tokens(example.caption) <= 60
            for turn in example.turns:
                text = (
                    f"<|im_start|>user\n{turn.question}<|im_end|>\n"
                    f"<|im_start|>assistant\n{turn.answer}<|im_end|>\n"
                )
                assert tokens(text) <= turn_tokens(turn), turn
                spent, turns = spent + tokens(text), turns + 1
    assert turns / (60 * len(TASKS)) >= 2.5
    assert spent / (60 * len(TASKS)) <= 90


@pytest.mark.demo
def test_printed_words_are_one_token(demo_model: Path) -> None:
    """After a space as after a quote, so that to read a word is to find one id."""
    tokenizer = Tokenizer.from_file(str(demo_model / "tokenizer.json"))
    for word in (*words(), *unseen_words()):
        assert tokenizer.token_to_id(word) is not None
        assert tokenizer.token_to_id(f"\u0120{word}") is not None


def test_unseen_words_stay_unseen() -> None:
    """No training example prints or says a word that is kept for the evaluation."""
    unseen = set(unseen_words())
    assert not unseen & set(words())
    for seed in range(120):
        for task in ("word", "line", "compare"):
            example = draw(task, seed)
            for turn in example.turns:
                quoted = turn.answer.split('"')[1::2]
                assert task == "line" or not unseen & set(quoted)
        (answer,) = (t.answer for t in draw("word_unseen", seed).turns[:1])
        assert answer.split('"')[1] in unseen


def test_mix_draws_every_training_task() -> None:
    """Every task of the mix comes up, the hardest most often; the unseen words never do."""
    drawn = Counter(draw_mixed(seed).task for seed in range(400))
    assert set(drawn) == set(MIX)
    assert {task for task, _ in drawn.most_common(3)} == {"crowd", "count", "word"}
    assert set(TASKS) - set(MIX) == {"word_unseen"}
    assert set(JUDGED_TASKS) <= set(MIX)


def test_seeds_of_training_and_evaluation_are_apart() -> None:
    """No picture of the evaluation can have been trained on."""
    assert TRAINING_SEEDS.stop <= EVALUATION_SEEDS.start


def test_unknown_task() -> None:
    """It is refused with the names that there are."""
    with pytest.raises(ValueError, match="no task is called 'colours'; there are word, count"):
        draw("colours", 0)


def test_contact_sheet() -> None:
    """Sheets show any examples, clips too, one cell each."""
    sheet = contact_sheet([draw(task, 1) for task in TASKS])
    assert sheet.size == (4 * 480, 5 * 430)
