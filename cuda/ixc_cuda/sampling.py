"""Sampling on the device: one token for each row of logits, by the rules of the CPU's sampler.

    logits      (rows, vocab) bf16, fp16 or float32; never changed
    out_ids     (rows,) int64
    out_finite  (rows,) bool; False where the row has a NaN, +inf, or nothing that may be drawn

A `SamplingState` holds what the kernel reads besides, at addresses that never change, so that a
captured graph sees each step's own settings. Rows are what is computed in a step; slots are where
a sequence keeps its settings and its counts of generated tokens for as long as it runs.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ixc_cuda.catalogue import Instantiation
from ixc_cuda.device import device_info
from ixc_cuda.kernel import load_kernel
from ixc_cuda.staging import Staging

_SOURCE = "sampling.cu"
_TYPES = {torch.bfloat16: "__nv_bfloat16", torch.float16: "__half", torch.float32: "float"}
_BLOCKS = (8, 4, 2, 1)  # that may work on a row

THREADS = 512
SHARED_BYTES = 70400  # of a block, without the marks of edited tokens
MOST_TOKENS = 1 << 17  # of a vocabulary, so that the sum of all masses fits 64 bits

INSTANTIATIONS = tuple(
    Instantiation(
        source=_SOURCE,
        name=f"sample_rows<{dtype}, {blocks}>",
        # sm_80 knows no clusters.
        architectures=("sm_80", "sm_90") if blocks == 1 else ("sm_90",),
    )
    for dtype in _TYPES.values()
    for blocks in _BLOCKS
)

# As the kernel reads them.
ROW_ENTRY = np.dtype([("slot", "<i4"), ("position", "<u4")])
SLOT_SETTINGS = np.dtype(
    [
        ("seed", "<u8"),
        ("top_p", "<f8"),
        ("temperature", "<f4"),
        ("min_p", "<f4"),
        ("repetition", "<f4"),
        ("presence", "<f4"),
        ("frequency", "<f4"),
        ("top_k", "<i4"),
        ("sample", "<u4"),
        ("edits_begin", "<i4"),
        ("num_edits", "<i4"),
        ("penalised", "<i4"),
        ("unused", "<i4", 2),
    ]
)
EDIT = np.dtype([("id", "<i4"), ("bias", "<f4")])

# float32 has no reciprocal of much smaller ones; no two logits are close enough to tell them apart.
_LEAST_TEMPERATURE = 1e-30


class Settings(Protocol):
    """What a sequence asks for; the runtime's `SamplingRow` is one."""

    @property
    def temperature(self) -> float: ...
    @property
    def top_p(self) -> float: ...
    @property
    def top_k(self) -> int: ...
    @property
    def min_p(self) -> float: ...
    @property
    def repetition_penalty(self) -> float: ...
    @property
    def presence_penalty(self) -> float: ...
    @property
    def frequency_penalty(self) -> float: ...
    @property
    def seed(self) -> int: ...
    @property
    def sample(self) -> int: ...
    @property
    def generated(self) -> Mapping[int, int]: ...
    @property
    def logit_bias(self) -> Sequence[tuple[int, float]]: ...
    @property
    def banned(self) -> Sequence[int]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    blocks_per_row: int
    shared_bytes: int


def configure(
    rows: int, vocab: int, *, multiprocessors: int, capability: tuple[int, int]
) -> Configuration:
    """As many blocks to a row as find a multiprocessor each; one where there are no clusters."""
    marks = -(-vocab // 32) * 4
    has_clusters = capability >= (9, 0)
    return Configuration(
        blocks_per_row=next(
            blocks
            for blocks in _BLOCKS
            if blocks == 1 or (has_clusters and rows <= _clusters_at_once(blocks, multiprocessors))
        ),
        shared_bytes=SHARED_BYTES + marks,
    )


def _clusters_at_once(blocks: int, multiprocessors: int) -> int:
    """How many clusters find room with a multiprocessor a block; the others would wait for them.

    Of two 66 on an H200, but of four 30 and of eight 15: its parts are not all of one size.
    """
    reachable = multiprocessors if blocks <= 2 else multiprocessors * 10 // 11
    return reachable // blocks


class SamplingState:
    """Settings and counts of up to `num_slots` sequences.

    A sequence is admitted to a slot; then every step stages which slots its rows belong to, on the
    stream that the step runs on. The kernel counts what it draws, so the next step may be staged
    and launched before anybody has seen the token. `most_edits` bounds the biases and bans of all
    slots together; a request may have a thousand.
    """

    def __init__(
        self, *, num_slots: int, vocab: int, device: torch.device, most_edits: int | None = None
    ) -> None:
        if not 1 <= vocab <= MOST_TOKENS:
            raise ValueError(f"a vocabulary of {vocab} tokens; 1 to {MOST_TOKENS} can be sampled")
        self.num_slots = num_slots
        self.vocab = vocab
        self.most_edits = 1100 * num_slots if most_edits is None else most_edits
        # int32, since an answer may repeat one token more often than 65,535 times. The kernel reads
        # only the counts that `seen` has a bit for, so their width costs memory alone.
        self.counts = torch.zeros(num_slots, vocab, dtype=torch.int32, device=device)
        self.seen = torch.zeros(num_slots, -(-vocab // 32), dtype=torch.int32, device=device)

        self._settings = np.zeros(num_slots, SLOT_SETTINGS)
        self._biases: dict[int, dict[int, float]] = {}
        self._bans: dict[int, tuple[int, ...]] = {}
        self._edits: dict[int, NDArray[np.void]] = {}

        self._entries_end = num_slots * ROW_ENTRY.itemsize
        self._settings_end = self._entries_end + num_slots * SLOT_SETTINGS.itemsize
        num_bytes = self._settings_end + self.most_edits * EDIT.itemsize
        self._packed = torch.zeros(num_bytes, dtype=torch.uint8, device=device)
        self._staging = Staging(self._packed)

    @property
    def device(self) -> torch.device:
        return self._packed.device

    @property
    def num_bytes(self) -> int:
        """On the device."""
        return sum(each.nbytes for each in (self.counts, self.seen, self._packed))

    @property
    def row_entries(self) -> Tensor:
        return self._packed[: self._entries_end]

    @property
    def settings(self) -> Tensor:
        return self._packed[self._entries_end : self._settings_end]

    @property
    def edits(self) -> Tensor:
        return self._packed[self._settings_end :]

    # ---- when a sequence comes, or its bans change

    def admit(self, slot: int, settings: Settings) -> None:
        """Give the slot to a sequence, new or resumed, with what it has generated so far."""
        penalised = (
            settings.repetition_penalty != 1.0
            or settings.presence_penalty != 0.0
            or settings.frequency_penalty != 0.0
        )
        temperature = settings.temperature
        entry = self._settings[slot]
        entry["seed"] = settings.seed
        entry["top_p"] = settings.top_p
        entry["temperature"] = max(temperature, _LEAST_TEMPERATURE) if temperature > 0 else 0
        entry["min_p"] = settings.min_p
        entry["repetition"] = settings.repetition_penalty
        entry["presence"] = settings.presence_penalty
        entry["frequency"] = settings.frequency_penalty
        entry["top_k"] = settings.top_k
        entry["sample"] = settings.sample
        entry["penalised"] = penalised
        biases: dict[int, float] = {}
        for token_id, bias in settings.logit_bias:
            biases[token_id] = biases.get(token_id, 0.0) + bias
        self._biases[slot] = biases
        self._bans.pop(slot, None)
        self.ban(slot, settings.banned)
        if penalised:
            self.reset_counts(slot, settings.generated)

    def ban(self, slot: int, token_ids: Sequence[int]) -> None:
        """These tokens must not come next in the slot, in place of those banned before.

        What the vocabulary does not have never comes, banned or favoured: it is left out. Cheap
        where nothing has changed: a step may say it of every row.
        """
        if self._bans.get(slot) == (wanted := tuple(token_ids)):
            return
        merged = self._biases[slot] | dict.fromkeys(token_ids, -np.inf)
        inside = [edit for edit in sorted(merged.items()) if 0 <= edit[0] < self.vocab]
        if inside:
            self._edits[slot] = np.array(inside, EDIT)
        else:
            self._edits.pop(slot, None)
        self._bans[slot] = wanted

    def reset_counts(self, slot: int, generated: Mapping[int, int]) -> None:
        self.counts[slot].zero_()
        self.seen[slot].zero_()
        if generated:
            ids = np.fromiter(generated.keys(), np.int64, len(generated))
            words = np.zeros(self.seen.shape[1], np.uint32)
            np.bitwise_or.at(words, ids // 32, np.uint32(1) << (ids % 32).astype(np.uint32))
            self.seen[slot].copy_(torch.from_numpy(words.view(np.int32)))
            amounts = torch.tensor(list(generated.values()), dtype=torch.int32)
            self.counts[slot].index_put_(
                (torch.from_numpy(ids).to(self.device),), amounts.to(self.device)
            )

    # ---- every step

    def stage(self, slots: Sequence[int], positions: Sequence[int]) -> None:
        """The next step's rows: their slots (-1: absent), and which output token comes next.

        One copy on the current stream; waits for nothing that this step or the last depends on.
        """
        memory = self._staging.begin()
        entries = memory[: self._entries_end].view(ROW_ENTRY)
        entries["slot"] = -1
        entries["slot"][: len(slots)] = slots
        entries["position"][: len(positions)] = positions
        used = self._settings_end + self._place_edits(slots, memory[self._settings_end :])
        memory[self._entries_end : self._settings_end] = self._settings.view(np.uint8)
        self._staging.copy(used)

    def _place_edits(self, slots: Iterable[int], memory: NDArray[np.uint8]) -> int:
        """Lay the slots' edits side by side; the bytes they take."""
        self._settings["num_edits"] = 0
        if not self._edits:
            return 0
        place = 0
        edits = memory.view(EDIT)
        for slot in slots:
            mine = self._edits.get(slot)
            if mine is None:
                continue
            if place + len(mine) > self.most_edits:
                raise ValueError(f"more than {self.most_edits} biases and bans in one step")
            edits[place : place + len(mine)] = mine
            self._settings[slot]["edits_begin"] = place
            self._settings[slot]["num_edits"] = len(mine)
            place += len(mine)
        return place * EDIT.itemsize


def sample(
    logits: Tensor, state: SamplingState, rows: int, *, out_ids: Tensor, out_finite: Tensor
) -> None:
    """Draw the next token of the first `rows` staged rows; absent ones get token 0."""
    stride = _check(logits, state, rows, out_ids, out_finite)
    if rows == 0:
        return
    info = device_info(logits.get_device())
    config = configure(
        rows,
        state.vocab,
        multiprocessors=info.multiprocessors,
        capability=info.capability,
    )
    blocks = config.blocks_per_row
    kernel = load_kernel(_SOURCE, f"sample_rows<{_TYPES[logits.dtype]}, {blocks}>")
    kernel.launch(
        (rows * blocks, 1, 1),
        THREADS,
        (
            logits,
            np.int64(stride),
            state.vocab,
            state.row_entries,
            state.settings,
            state.edits,
            state.counts,
            state.seen,
            out_ids,
            out_finite,
        ),
        shared_bytes=config.shared_bytes,
        overlap=True,
    )


def _check(
    logits: Tensor, state: SamplingState, rows: int, out_ids: Tensor, out_finite: Tensor
) -> int:
    """Elements from one row of logits to the next."""
    if logits.dtype not in _TYPES or logits.dim() != 2 or logits.shape[1] != state.vocab:
        raise ValueError(
            f"logits are {logits.dtype} {tuple(logits.shape)}; expected rows of {state.vocab}, "
            f"of {', '.join(map(str, _TYPES))}"
        )
    if not 0 <= rows <= min(logits.shape[0], state.num_slots):
        raise ValueError(
            f"{rows} rows of {logits.shape[0]}; at most {state.num_slots} can be staged"
        )
    stride = logits.stride(0) if logits.shape[0] > 1 else -(-state.vocab // 8) * 8
    # Eight logits are read at once, behind a row's last one too.
    if logits.stride(1) != 1 or stride % 8 or stride < state.vocab or logits.data_ptr() % 16:
        raise ValueError(
            f"rows of logits lie {logits.stride()} apart at {logits.data_ptr():#x}; expected "
            "neighbouring logits, rows a multiple of 8 apart, from a multiple of 16 bytes on"
        )
    end = logits.storage_offset() + (logits.shape[0] - 1) * stride + -(-state.vocab // 8) * 8
    if logits.shape[0] and end * logits.itemsize > logits.untyped_storage().nbytes():
        raise ValueError("the last row of logits ends before a multiple of 8 of them")
    for name, tensor, dtype in (
        ("out_ids", out_ids, torch.int64),
        ("out_finite", out_finite, torch.bool),
    ):
        if tensor.dtype != dtype or tensor.shape[0] < rows or not tensor.is_contiguous():
            raise ValueError(
                f"{name} is {tensor.dtype} {tuple(tensor.shape)}; expected {dtype} for {rows} rows"
            )
    return stride
