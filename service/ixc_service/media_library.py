"""What owners have uploaded: opened once to see what it is, then to be named in prompts.

    finished upload ─► PROCESSING ─ examined by a media worker ─► ACTIVE, with its size
                                                              └─► FAILED, with the reason
When the workers are busy it stays PROCESSING: whoever asks for it, and each sweep, tries again.

Inline pictures and clips have no names here; both kinds come together in `Attachments`.
"""

import asyncio
from dataclasses import dataclass

from ixc_runtime.errors import (
    MediaTypeUnsupported,
    MediaUndecodable,
    RuntimeFault,
    fault_from_reason,
)
from ixc_service.errors import MediaInUse, MediaNotReady, RequestInvalid, Violation
from ixc_service.identifiers import media_name
from ixc_service.media_store import Encoded, MediaStore
from ixc_service.models import Models
from ixc_service.moments import Clock
from ixc_service.status import FaultDesk
from ixc_service.store import MediaFailure, MediaRecord, MediaRecords, MediaState


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedMedia:
    """An uploaded object as a request names it. `field` is where, as the contract spells it."""

    digest: str
    is_video: bool
    field: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachments:
    """The pictures and clips of a request, in either way they can come."""

    inline: tuple[Encoded, ...] = ()
    named: tuple[NamedMedia, ...] = ()

    @property
    def digests(self) -> tuple[str, ...]:
        inline = tuple(each.digest for each in self.inline)
        return inline + tuple(each.digest for each in self.named)


class MediaLibrary:
    def __init__(
        self,
        records: MediaRecords,
        media: MediaStore,
        models: Models,
        *,
        clock: Clock,
        faults: FaultDesk,
    ) -> None:
        self._records = records
        self._media = media
        self._models = models
        self._clock = clock
        self._faults = faults
        self._examinations: dict[tuple[str, str], asyncio.Task[None]] = {}

    async def close(self) -> None:
        """What is being examined is examined again after the next start."""
        tasks = tuple(self._examinations.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def get(self, owner: str, digest: str) -> MediaRecord:
        record = await self._records.get(owner, digest, self._clock.now())
        if record.state is MediaState.PROCESSING:
            self._start(record)
        return record

    async def settled(self, record: MediaRecord) -> MediaRecord:
        """The record after its examination; as it was if there was no worker for that."""
        if record.state is not MediaState.PROCESSING:
            return record
        await asyncio.shield(self._start(record))
        return await self._records.get(record.owner, record.digest, self._clock.now())

    async def resume(self) -> None:
        """Begins to examine what was left over: by a crash, or because the workers were busy."""
        for record in await self._records.unsettled():
            self._start(record)

    async def take(self, owner: str, attachments: Attachments) -> dict[str, MediaRecord]:
        """Makes a request's media ready for the engine; the records of the named ones.

        Raises what is wrong with any: not there, not ready, not usable, of the other kind. The
        caller pins them before.
        """
        records = {}
        for wanted in attachments.named:
            record = await self.get(owner, wanted.digest)
            _check(record, wanted)
            records[record.digest] = record
        self._media.require(records)
        if attachments.inline:
            await self._media.put(attachments.inline)
        return records

    async def delete(self, owner: str, digest: str, *, allow_missing: bool) -> None:
        if self._media.is_pinned(owner, digest):
            raise MediaInUse(
                "a request under way refers to it", media=media_name(digest), session=""
            )
        await self._records.delete(owner, digest, self._clock.now(), allow_missing=allow_missing)

    def _start(self, record: MediaRecord) -> asyncio.Task[None]:
        """The examination under way, or a new one."""
        place = (record.owner, record.digest)
        task = self._examinations.get(place)
        if task is None:
            task = asyncio.create_task(self._examine(record), name=f"examine {record.digest[:8]}")
            self._examinations[place] = task
            task.add_done_callback(lambda _: self._examinations.pop(place, None))
        return task

    async def _examine(self, record: MediaRecord) -> None:
        source = (
            self._media.video_source(record.digest)
            if record.is_video
            else self._media.source(record.digest)
        )
        try:
            with self._media.pinned(record.owner, [record.digest]):
                model = self._models.with_pictures()
                if model is None:  # it waits for one
                    return
                with model.held() as engine:
                    facts = await engine.examine(source)
                await self._records.settle(record.owner, record.digest, facts)
        except (MediaUndecodable, MediaTypeUnsupported) as fault:
            failure = MediaFailure(
                reason=fault.reason,
                message=fault.message,
                metadata={**fault.metadata, "media": record.digest},
            )
            await self._records.settle(record.owner, record.digest, failure)
        except Exception as error:  # busy workers, a full disk: it stays to be examined
            self._faults.presentable(error, during="examining media")


def failure_of(record: MediaRecord) -> RuntimeFault:
    """Why a FAILED object cannot be used."""
    assert isinstance(record.facts, MediaFailure)
    return fault_from_reason(record.facts.reason, record.facts.message, record.facts.metadata)


def _check(record: MediaRecord, wanted: NamedMedia) -> None:
    if record.state is MediaState.FAILED:
        raise failure_of(record)
    if record.state is MediaState.PROCESSING:
        raise MediaNotReady("it is still being looked at", media=media_name(record.digest))
    if record.is_video != wanted.is_video:
        kind = "a clip" if record.is_video else "a picture"
        raise RequestInvalid(
            (
                Violation(
                    field=wanted.field,
                    rule="WRONG_KIND",
                    description=f"{media_name(record.digest)} is {kind}",
                ),
            )
        )
