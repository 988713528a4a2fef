"""Drawn instructions and pages: repeatable, right by their own judge, and new in evaluations."""

from collections.abc import Callable
from pathlib import Path

import pytest

from models.demo.training.batches import Framer
from models.demo.writing import (
    EVALUATION_SEEDS,
    TRAINING_SEEDS,
    PageExample,
    draw_page,
    draw_screenshot,
    judge_page,
)
from models.demo.writing.colours import BRIGHT, DEEP, INK, LIGHT
from models.demo.writing.vocabulary import Draw, Pool

SEEDS = (*TRAINING_SEEDS[:150], *EVALUATION_SEEDS[:50])
DRAWERS = pytest.mark.parametrize("draw", [draw_page, draw_screenshot])
MOST_TOKENS = 360


@DRAWERS
def test_the_same_seed(draw: Callable[[int], PageExample]) -> None:
    """Gives the same words, page and pixels."""
    for seed in (0, 1, 2, EVALUATION_SEEDS.start):
        one, other = draw(seed), draw(seed)
        assert (one.instruction, one.html, one.wishes) == (
            other.instruction,
            other.html,
            other.wishes,
        )
        if one.picture is not None and other.picture is not None:
            assert one.picture.tobytes() == other.picture.tobytes()


@DRAWERS
def test_every_drawn_page(draw: Callable[[int], PageExample]) -> None:
    """Is what its instruction asks for, in every property."""
    for seed in SEEDS:
        example = draw(seed)
        judged = judge_page(example.html, example.wishes, stopped=True)
        assert judged.passed, (seed, judged, example)
        assert judged.furnished, (seed, example)
        assert judged.self_contained, (seed, example)


def test_invented_colours_are_copied() -> None:
    """A page of made-up names has just those that were asked."""
    for seed in SEEDS[:50]:
        example = draw_page(seed, invented_share=1.0)
        words = example.instruction.casefold().replace(" ", "")
        for _, colour in example.wishes.colours:
            assert colour in words
            assert f": {colour};" in example.html


def test_what_is_judged_is_asked() -> None:
    """Whatever a page is judged by stands in the instruction's words."""
    for seed in SEEDS:
        example = draw_page(seed)
        wishes, words = example.wishes, example.instruction.casefold()
        assert wishes.title.casefold() in words
        assert all(heading.casefold() in words for heading in wishes.headings)
        assert all(item.casefold() in words for item in wishes.items)
        assert wishes.button.casefold() in words
        assert wishes.footer.casefold() in words
        together = words.replace(" ", "")
        assert wishes.colours
        assert all(colour in together for _, colour in wishes.colours), example


def test_instructions_differ() -> None:
    """Hardly two of a thousand seeds ask alike."""
    assert len({draw_page(seed).instruction for seed in TRAINING_SEEDS[:1000]}) > 990


def test_titles_of_evaluations() -> None:
    """Are those of no training page."""
    trained = {draw_page(seed).wishes.title for seed in TRAINING_SEEDS[:3000]}
    asked = {draw_page(seed).wishes.title for seed in EVALUATION_SEEDS[:500]}
    assert len(asked) > 250
    assert not trained & asked


def test_held_out_colours() -> None:
    """Stand in no training page, and in many of the evaluation's."""
    pools = (LIGHT, DEEP, INK, BRIGHT)
    seen = {colour for pool in pools for colour in pool.seen}
    held_out = {colour for pool in pools for colour in pool.unseen} - seen

    def colours(seed: int) -> set[str]:
        return {colour for _, colour in draw_page(seed).wishes.colours}

    assert held_out
    assert not any(colours(seed) & held_out for seed in TRAINING_SEEDS[:1500])
    assert sum(bool(colours(seed) & held_out) for seed in EVALUATION_SEEDS[:100]) > 20


def test_a_pool() -> None:
    """Holds an eighth out of training, never what is common, and nothing of a small list."""
    entries = [f"entry {index}" for index in range(80)]
    pool = Pool.of(entries, common=entries[:70])
    assert len(pool.unseen) == 10
    assert not set(pool.unseen) & set(entries[:70])
    assert {*pool.seen, *pool.unseen} == set(entries)
    training, evaluation = Draw(TRAINING_SEEDS.start), Draw(EVALUATION_SEEDS.start)
    assert {training.one(pool) for _ in range(500)} == set(pool.seen)
    assert {evaluation.one(pool) for _ in range(500)} == set(pool.unseen)
    assert Pool.of("abcd").unseen == ()


def test_some_of_a_pool() -> None:
    """Different entries; in an evaluation held-out ones first, and never more than there are."""
    pool = Pool(seen=("a", "b", "c"), unseen=("x",))
    for seed in range(20):
        assert sorted(Draw(seed).some(pool, 5)) == ["a", "b", "c"]
        assert "x" in Draw(EVALUATION_SEEDS.start + seed).some(pool, 2)


def test_a_seed_of_neither_range() -> None:
    """Is refused: nobody could say whether it was trained on."""
    with pytest.raises(ValueError, match="seed -1"):
        draw_page(-1)


@pytest.mark.demo
def test_pages_are_short(demo_model: Path) -> None:
    """A page is at most a few hundred of SmolLM2's tokens."""
    framer = Framer(demo_model / "tokenizer.json")
    lengths = [len(framer.encode(draw_page(seed).html)) for seed in TRAINING_SEEDS[:500]]
    lengths += [len(framer.encode(draw_screenshot(seed).html)) for seed in TRAINING_SEEDS[:100]]
    assert max(lengths) <= MOST_TOKENS
