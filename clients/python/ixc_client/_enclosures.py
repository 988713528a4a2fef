"""The pictures and clips of one request: which go inside it, and which are uploaded first.

Small ones go inside, so that a picture costs no call of its own. What the server does not take
inside is uploaded, the largest first, until the rest fits. Both clients do the uploading; here is
only the choice.
"""

from dataclasses import dataclass

from ixc.v1 import content_pb2
from ixc_client._blob import Blob

# Up to this the server need not be asked what it takes; every sensible one takes it.
_SMALL_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Enclosure:
    """A part of a message that lacks its bytes, and where they are."""

    part: content_pb2.ImagePart | content_pb2.VideoPart
    blob: Blob

    def put_inside(self) -> None:
        self.part.inline_data = self.blob.whole()


class Enclosures:
    def __init__(self) -> None:
        self.waiting: list[Enclosure] = []

    def add(self, part: content_pb2.ImagePart | content_pb2.VideoPart, blob: Blob) -> None:
        self.waiting.append(Enclosure(part=part, blob=blob))

    def put_small_ones_inside(self) -> None:
        """All of them or none; what waits afterwards needs to know the server's limit."""
        if self._total() <= _SMALL_BYTES:
            self.put_inside(_SMALL_BYTES)

    def largest_beyond(self, limit: int) -> Enclosure | None:
        """The next to be uploaded; None once what is left fits into `limit` bytes."""
        if self._total() <= limit:
            return None
        return max(self.waiting, key=lambda enclosure: enclosure.blob.size)

    def put_inside(self, limit: int) -> None:
        assert self._total() <= limit, "the rest has been uploaded"
        for enclosure in self.waiting:
            enclosure.put_inside()
        self.waiting.clear()

    def uploaded(self, enclosure: Enclosure, media: str) -> None:
        enclosure.part.media = media
        self.waiting.remove(enclosure)

    def _total(self) -> int:
        return sum(enclosure.blob.size for enclosure in self.waiting)
