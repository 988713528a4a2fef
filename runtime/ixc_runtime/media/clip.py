"""A clip opened with decord: its numbers, and its frames one at a time as pictures.

Imported by media workers for clips alone. decord finds a frame by seeking to the key frame before
it and decoding from there, so what lies between the frames wanted is mostly never decoded; frames
so found are those of reading from the start. It is asked for whole frames: its own resizing while
decoding is cheaper, but gives other pixels than the reference's strip.

decord runs one thread. It raises nearly anything on broken input, never says what is wrong, and
may take its process with it; whoever calls this is prepared for that. Bytes flipped inside a
frame mostly go unnoticed and give wrong pixels, as in any player.
"""

import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import decord
from PIL import Image


class ClipReader:
    def __init__(self, path: Path) -> None:
        self._reader = decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=1)

    @property
    def num_frames(self) -> int:
        return len(self._reader)

    def fps(self) -> float:
        """Frames over the time they are shown for; 0 if the clip has no usable times.

        The index's own rate where it agrees (it is exact: 30000/1001), but not for recordings of
        varying rate, of which it says anything.
        """
        stated = float(self._reader.get_avg_fps())
        begin = float(self._reader.get_frame_timestamp([0])[0][0])
        end = float(self._reader.get_frame_timestamp([self.num_frames - 1])[0][1])
        if not 0 < end - begin < math.inf:
            return stated if 0 < stated < math.inf else 0.0
        measured = self.num_frames / (end - begin)
        return stated if math.isclose(stated, measured, rel_tol=1e-3) else measured

    def frames(self, indices: Iterable[int]) -> Iterator[Image.Image]:
        """Decoded one after the other as they are asked for; ascending indices are cheapest."""
        for index in indices:
            rows = self._reader[index].asnumpy()
            height, width = rows.shape[:2]
            # Padded rows come as if a pixel had more than three bytes; the padding is at the end.
            pixels = rows.reshape(height, -1)[:, : width * 3]
            yield Image.frombytes("RGB", (width, height), pixels.tobytes())
