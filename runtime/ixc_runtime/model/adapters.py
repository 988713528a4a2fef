"""Which rows of a step take which adapter: images' own (partial LoRA), and the task's.

The image adapter applies to the rows of image tokens, separators included, whatever the task. A
task adapter applies to every row of its sequence, image rows too. Both may meet in one row.
"""

from dataclasses import dataclass

from torch import Tensor

from ixc_runtime.model.batch import StepBatch
from ixc_runtime.model.linear import Linear

# Beside the names requests use: "web", "write", and those of adapters loaded later. The brackets
# keep it apart from all of them.
IMAGE = "(image)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Rows of this step that take one adapter: those listed, or all."""

    adapter: str
    rows: Tensor | None = None


class RoutedAdapters:
    """One adapter after the other, each over its rows."""

    def __init__(self, *routes: Route) -> None:
        self._routes = routes

    def touch(self, linear: Linear) -> bool:
        return any(route.adapter in linear.pairs for route in self._routes)

    def add(self, y: Tensor, x: Tensor, linear: Linear) -> None:
        for route in self._routes:
            if (pair := linear.pairs.get(route.adapter)) is not None:
                linear.ops.add_low_rank(y, x, pair, rows=route.rows)


def plan_routes(batch: StepBatch, available: frozenset[str]) -> RoutedAdapters:
    """Of this step, task adapters first. An absent adapter is the caller's bug."""
    wanted = [(name, rows) for name, rows in batch.adapter_rows if rows.numel()]
    if IMAGE in available and batch.image_rows.numel():
        wanted.append((IMAGE, batch.image_rows))
    for name, _ in wanted:
        if name not in available:
            raise ValueError(f"adapter {name} is not loaded; {sorted(available)} are")
    return RoutedAdapters(
        *(
            Route(adapter=name, rows=None if rows.numel() == batch.num_rows else rows)
            for name, rows in wanted
        )
    )
