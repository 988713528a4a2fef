"""What is drawn more, and which tokens of an answer count most."""

from pathlib import Path

import numpy as np
import pytest

from ixc_runtime.checkpoint.gguf_llama import LlamaGguf
from ixc_runtime.media.geometry import plan_tiles
from models.demo.drawing import MIX
from models.demo.drawing.judging import SHAPE_NAMES
from models.demo.drawing.marks import Mark
from models.demo.training.batches import STRESS, Framer, collate
from models.demo.training.lessons import (
    CATEGORIES,
    CHARACTERS,
    LONGEST_WORD,
    MIDDLES,
    NO_LETTER,
    UNSAID,
    label_maps,
)
from models.demo.training.stream import LEAN, LEAST_LEAN, UNMEASURED_LEAN, Mix
from tests.fakes.tiny_gguf import write_tiny_gguf


@pytest.fixture
def framer(tmp_path: Path) -> Framer:
    write_tiny_gguf(tmp_path / "tiny.gguf")
    LlamaGguf(tmp_path / "tiny.gguf").write_tokenizer(tmp_path / "toy.json")
    return Framer(tmp_path / "toy.json")


def test_what_is_wrong_is_drawn_more() -> None:
    """A task's share grows with what it misses, and falls to its least once all is right."""
    mix = Mix()
    mix.lean({"word": 0.0, "colour": 1.0})
    shares = mix.shares()
    assert shares["word"] == pytest.approx(MIX["word"] * (LEAST_LEAN + LEAN))
    assert shares["colour"] == pytest.approx(MIX["colour"] * LEAST_LEAN)
    assert shares["chart"] == pytest.approx(MIX["chart"] * UNMEASURED_LEAN)


def test_the_word_that_decides_counts_more(framer: Framer) -> None:
    """Of a judged answer, the tokens of what is expected; of any other answer, none."""
    turns = [("Which colour?", "The moon is red."), ("Sure?", "Yes.")]
    sample = framer.chat(turns, decisive=[[["crimson", "red"]]])
    assert framer.decode([sample.ids[place] for place in sample.stressed]).strip() == "red"

    batch = collate([sample], 128, framer.pad)
    stressed = batch.targets[batch.weights == STRESS].tolist()
    assert framer.decode(stressed).strip() == "red"
    assert (batch.weights != STRESS).sum() == len(batch.targets) - len(stressed)


def test_a_middle_is_on_one_patch_of_every_map_that_shows_it() -> None:
    """Of four tiles one shows it, and the view; a word has none."""
    plan = plan_tiles(448, 448, hd_num=4, tile_size=224)
    shape = Mark(box=(0.5, 0.1, 0.7, 0.3), colour="red", kind="star")
    word = Mark(box=(0.1, 0.7, 0.3, 0.8), colour="red", text=CATEGORIES["word"][0])
    cells, _ = label_maps([shape, word], plan)
    star = SHAPE_NAMES.index("star") + 1
    found = np.argwhere(cells[..., -MIDDLES:] > 0)
    # The middle is at (268.8, 89.6) of 448: in the right upper tile, row 6 and column 3 of
    # its patches; in the view, row 3 and column 9.
    assert found.tolist() == [[1, 3 * 8 + 1, 1], [4, 1 * 8 + 4, 3]]
    assert set(cells[..., -MIDDLES:].flatten().tolist()) == {0, star}


@pytest.mark.parametrize("box", [(0.4, 0.1, 0.6, 0.2), (0.1, 0.45, 0.3, 0.55)])
def test_a_word_that_a_tile_cuts_is_not_read_there(box: tuple[float, float, float, float]) -> None:
    """Cut at its side or through its height, it is read and spelt in the global view alone."""
    plan = plan_tiles(448, 448, hd_num=4, tile_size=224)
    mark = Mark(box=box, colour="red", text=CATEGORIES["word"][0])
    cells, _ = label_maps([mark], plan)
    words, letters = cells[..., 5], cells[..., len(CATEGORIES) :][..., :LONGEST_WORD]
    assert (words[:-1] == UNSAID).all()
    assert (letters[:-1] == UNSAID).all()
    assert (words[-1] == 0).any()
    spelt = letters[-1][words[-1] == 0][0].tolist()
    text = "".join(CHARACTERS[one] for one in spelt if one != NO_LETTER)
    assert text == CATEGORIES["word"][0]
