"""Capturing a piece of work as a CUDA graph. All graphs of an engine are captured at its start."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch


class Capturing:
    """Graphs that share memory: no two of them may be under way at the same time."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    @contextmanager
    def session(self) -> Iterator[None]:
        """Around a number of captures. Afterwards nothing is kept beside the graphs' own memory."""
        # Garbage with tensors in it must not be collected while a capture is under way.
        gc.collect()
        gc.disable()
        try:
            yield
        finally:
            gc.enable()
            torch.cuda.synchronize(self._device)
            torch.cuda.empty_cache()

    def capture(self, what: str, work: Callable[[], object]) -> torch.cuda.CUDAGraph:
        """Run it once, then again under capture. It launches on the current stream alone.

        What it leaves behind it has to keep outside of itself. Whatever goes wrong, the current
        stream is afterwards what it was.
        """
        torch.cuda.current_stream(self._device).synchronize()
        with torch.cuda.stream(self._stream):
            # Outside first: kernels are loaded and libraries set up before anything is captured.
            work()
            self._stream.synchronize()
            graph: Any = torch.cuda.CUDAGraph()
            # Other threads may go on using the device.
            graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
            try:
                work()
            except BaseException as error:
                error.add_note(f"while capturing {what}")
                self._abandon(graph)
                raise
            graph.capture_end()
            captured: torch.cuda.CUDAGraph = graph
        return captured

    @staticmethod
    def _abandon(graph: Any) -> None:
        """What is captured by halves: the driver refuses to end it well, which nobody minds."""
        try:
            graph.capture_end()
        except RuntimeError:
            graph.reset()
