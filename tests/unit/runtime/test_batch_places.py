"""Places in the device's tables, on a CPU: who has which, and what lies there."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ixc_runtime.config import ModelConfig
from ixc_runtime.engine_process.batch_places import BatchPlaces
from ixc_runtime.engine_process.decode_graphs import batch_sizes
from ixc_runtime.engine_process.decode_inputs import DecodeInputs
from ixc_runtime.engine_process.graphed_tower import tile_counts
from ixc_runtime.engine_process.messages import Submit
from ixc_runtime.kv_cache.page_table import PageTable
from ixc_runtime.scheduler.sequence import Sequence, SequenceTimes
from tests.fakes.engine_driver import GREEDY

CONFIG = ModelConfig(
    hidden_size=64,
    num_layers=1,
    num_heads=4,
    num_kv_heads=1,
    head_dim=16,
    intermediate_size=96,
    vocab_size=320,
    rms_norm_eps=1e-5,
    rope_theta=1e4,
    rope_scaling_factor=None,
    max_position_embeddings=128,
    bos_token_id=1,
    eos_token_ids=(2,),
    torch_dtype="float32",
    quantization=None,
)


def places(num_places: int) -> BatchPlaces:
    return BatchPlaces(CONFIG, num_places=num_places, max_pages=8, device=torch.device("cpu"))


def running(*pages: int, base: float = 1e4) -> Sequence:
    request = Submit(
        sequence_id="",
        token_ids=[1],
        images=[],
        adapter="base",
        scope="",
        sampling=GREEDY,
        stop_token_ids=[],
        bad_word_ids=[],
        top_logprobs=None,
    )
    sequence = Sequence(
        request=request, namespace=b"", rotary_base=base, times=SequenceTimes(submitted=0.0)
    )
    sequence.table = PageTable(namespace=b"", reserved=8, pages=list(pages))
    return sequence


def pages_at(held: BatchPlaces, sequence: Sequence, count: int) -> list[int]:
    return held.page_tables[held.place(sequence), :count].tolist()


def test_a_place_comes_free_with_its_sequences_end() -> None:
    """The newcomer there has its own pages and rotation, however many the old one had."""
    held = places(2)
    first, second = running(5, 6, 7), running(8)
    assert [each for each, _ in held.take([first, second])] == [first, second]
    left = held.place(first)
    first.table = None
    third = running(3, base=1e6)

    assert held.take([second, third]) == [(third, left)]
    assert pages_at(held, third, 1) == [3]
    assert pages_at(held, second, 1) == [8]
    assert held.frequencies[left, 1].item() == pytest.approx(1e6 ** -(2 / CONFIG.head_dim))


def test_pages_that_come_or_are_exchanged_are_seen() -> None:
    """Up to as many as the table is wide; those in front stay."""
    held = places(1)
    sequence = running(1, 2)
    held.take([sequence])
    assert sequence.table is not None
    sequence.table.pages += [3, 4, 5, 6, 7, 8]
    sequence.table.exchange(1, 9)

    assert held.take([sequence]) == []
    assert pages_at(held, sequence, 8) == [1, 9, 3, 4, 5, 6, 7, 8]


@given(st.integers(1, 600))
def test_every_batch_has_a_size_that_is_not_much_larger(max_batch: int) -> None:
    """The largest is the limit itself, and no step pads by more than eight rows or a half."""
    sizes = batch_sizes(max_batch)
    assert list(sizes) == sorted(set(sizes))
    assert sizes[-1] == max_batch
    for rows in range(1, max_batch + 1):
        size = next(size for size in sizes if size >= rows)
        assert size - rows < max(8, rows // 2)


@given(st.integers(1, 120))
def test_every_number_of_tiles_is_padded_by_little(most_tiles: int) -> None:
    """The largest is the limit itself, and no call encodes more than a quarter for nobody."""
    counts = tile_counts(most_tiles)
    assert list(counts) == sorted(set(counts))
    assert counts[-1] == most_tiles
    for number in range(1, most_tiles + 1):
        count = next(count for count in counts if count >= number)
        assert count - number <= number // 4


def test_the_inputs_of_a_step() -> None:
    """Rows behind the step's own are nobody's, whatever the step before had there."""
    inputs = DecodeInputs(max_batch=4, num_slots=3, nobody=9, device=torch.device("cpu"))
    inputs.stage([5, 6, 7, 8], [50, 60, 70, 80], [1, 2, 3, 4], [0, -1, 0, 2])
    assert inputs.groups.groups.view(-1, 3)[:2].tolist() == [[0, 0, 2], [2, 2, 1]]
    assert inputs.groups.order[:3].tolist() == [0, 2, 3]
    inputs.stage([3, 2], [30, 20], [-2, 7], [-1, -1])

    assert inputs.rows.tolist() == [[3, 2, 9, 9], [30, 20, 0, 0], [-2, 7, 0, 0]]
    assert not inputs.groups.groups.view(-1, 3)[:, 2].any()
