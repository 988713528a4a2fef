"""A model's adapters where captured steps find them: each has a slot in a table on the device.

A step says which slot each of its rows takes. Adapters come and go by rewriting their slot, on the
stream of the steps: one that was launched before reads what was there before.
"""

from collections.abc import Sequence

from torch import Tensor

from ixc_cuda.low_rank import MOST_BLOCKS, MOST_RANKS, LowRankTable, RowGroups, add_low_rank
from ixc_runtime.errors import AdapterInvalid, MemoryLow
from ixc_runtime.model.decoder import LayerPairs, Model
from ixc_runtime.model.linear import Linear
from ixc_runtime.request import BASE_ADAPTER

NOBODY = -1  # the slot of a row that takes no adapter


class AdapterSlots:
    """Slots for `num_slots` adapters, the model's own in the first of them."""

    def __init__(self, model: Model, *, num_slots: int) -> None:
        self._linears = tuple(model.linears)
        self._index_of = {linear: index for index, linear in enumerate(self._linears)}
        self._table = LowRankTable(
            [linear.shape for linear in self._linears],
            num_slots=num_slots,
            dtype=model.dtype,
            device=model.device,
        )
        self._slot_of: dict[str, int] = {}
        self._free = list(reversed(range(num_slots)))
        for name in sorted(model.adapters):
            self.take(name)

    @property
    def num_slots(self) -> int:
        return self._table.num_slots

    @property
    def memory(self) -> Tensor:
        """The table as it lies on the device: a row a slot."""
        return self._table.memory

    def check(self, pairs: Sequence[LayerPairs]) -> None:
        """Raises MemoryLow or AdapterInvalid if there is no slot for another such adapter."""
        if not self._free:
            raise MemoryLow(
                f"{self.num_slots} adapters are loaded, which is all that the engine has room for",
                adapters=self.num_slots,
            )
        for of_layer in pairs:
            for name, pair in of_layer.items():
                ranks = len(pair.down)
                if ranks > MOST_RANKS or len(pair.blocks) > MOST_BLOCKS:
                    raise AdapterInvalid(
                        f"the adapter has {ranks} ranks in {len(pair.blocks)} parts of {name}; on "
                        f"a GPU at most {MOST_RANKS} in {MOST_BLOCKS} are computed",
                        ranks=ranks,
                    )

    def take(self, name: str) -> None:
        """The model has it by now. Whatever goes wrong, no slot is taken."""
        self._table.put(self._free[-1], [linear.pairs.get(name) for linear in self._linears])
        self._slot_of[name] = self._free.pop()

    def drop(self, name: str) -> None:
        slot = self._slot_of.pop(name)
        self._table.put(slot, [None] * len(self._linears))
        self._free.append(slot)

    def slot(self, name: str) -> int:
        """NOBODY for the model without adapters."""
        return NOBODY if name == BASE_ADAPTER else self._slot_of[name]

    def add(self, y: Tensor, x: Tensor, linear: Linear, groups: RowGroups) -> None:
        """To each row of y what its slot's adapter makes of its row of x."""
        add_low_rank(y, x, groups, self._table, self._index_of[linear])


class GroupedAdapters:
    """Whatever slots a step's rows take, known to the device alone: every linear may be adapted."""

    def __init__(self, slots: AdapterSlots, groups: RowGroups) -> None:
        self._slots = slots
        self._groups = groups

    def touch(self, linear: Linear) -> bool:
        return True

    def add(self, y: Tensor, x: Tensor, linear: Linear) -> None:
        self._slots.add(y, x, linear, self._groups)
