"""From a request to an order that a job can be given: which folder, what it takes, its pictures.

What can be known without the work is checked here, while the caller still waits. Knows requests
and roots; knows nothing of queues.
"""

import asyncio
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ixc.v1 import model_pb2, operation_pb2, weights_service_pb2
from ixc_runtime.errors import FieldInvalid, ModelIdTaken, NotOffered
from ixc_runtime.jobs import JobSpec, MergeWork, QuantizeWork, SampleSpec
from ixc_runtime.jobs.preflight import preflight
from ixc_runtime.models_root import ModelsRoot
from ixc_runtime.request import BASE_ADAPTER
from ixc_service.errors import ModelInUse, StoreUnavailable
from ixc_service.identifiers import digest_of, model_id_of, model_name
from ixc_service.media_library import Attachments, MediaLibrary, NamedMedia
from ixc_service.media_store import Encoded, MediaStore
from ixc_service.models import Models
from ixc_service.operations.records import JobOrder, LoadOrder

_DTYPES: Mapping[int, str] = {
    model_pb2.DATA_TYPE_FLOAT32: "float32",
    model_pb2.DATA_TYPE_BFLOAT16: "bfloat16",
    model_pb2.DATA_TYPE_FLOAT16: "float16",
}
_Request = weights_service_pb2.MergeLoraRequest | weights_service_pb2.QuantizeRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSettings:
    """Where jobs run. `threads` None: the library's choice."""

    device: str
    threads: int | None
    niceness: int


class Orders:
    """`outside` are models that are served from folders which their owner has named by a path.

    `folder` keeps what comes with requests, by operation.
    """

    def __init__(
        self,
        *,
        root: ModelsRoot | None,
        adapters_root: Path | None,
        outside: Mapping[str, Path],
        models: Models,
        media: MediaStore,
        library: MediaLibrary,
        folder: Path,
        owner: str,
        job: JobSettings,
    ) -> None:
        self._root = root
        self._adapters_root = adapters_root
        self._outside = outside
        self._models = models
        self._media = media
        self._library = library
        self._folder = folder
        self._owner = owner
        self._job = job

    def folder_of(self, operation_id: str) -> Path:
        """Of what came with the operation's request."""
        return self._folder / operation_id

    async def merge_lora(
        self, request: weights_service_pb2.MergeLoraRequest, operation_id: str
    ) -> JobOrder:
        adapter = request.adapter.partition("/")[2] or None
        if adapter is not None and self._adapters_root is None:
            raise NotOffered("the server has no adapters root", feature="adapters_root")
        limits = request.thresholds
        work = MergeWork(
            task=request.task or None,
            adapters_root=str(self._adapters_root) if adapter else None,
            adapter=adapter,
            dtype=_DTYPES.get(request.dtype),
            max_relative_difference=(
                limits.max_relative_difference
                if limits.HasField("max_relative_difference")
                else None
            ),
            min_top1_agreement=(
                limits.min_top1_agreement if limits.HasField("min_top1_agreement") else None
            ),
        )
        return await self._order(request, work, operation_id)

    async def quantize(
        self, owner: str, request: weights_service_pb2.QuantizeRequest, operation_id: str
    ) -> JobOrder:
        work = quantize_work(request)
        order = await self._order(request, work, operation_id)
        if request.validate_only or not request.calibration.samples:
            return order
        pictures = await self._pictures(owner, request.calibration, operation_id)
        samples = tuple(
            msgspec.structs.replace(sample, image=pictures.get(sample.image or ""))
            for sample in work.samples
        )
        work = msgspec.structs.replace(work, samples=samples)
        spec = msgspec.structs.replace(order.spec, work=work)
        return msgspec.structs.replace(order, spec=spec)

    def check_load(self, order: LoadOrder) -> None:
        """Raises CheckpointMissing for a model that is neither served nor in the root."""
        root = self._offered_root()
        if self._models.find(order.model_id) is None:
            root.folder(order.model_id)

    async def forget(self, operation_id: str) -> None:
        """Of a request that did not become an operation."""
        await asyncio.to_thread(shutil.rmtree, self.folder_of(operation_id), ignore_errors=True)

    async def clear(self, keep: frozenset[str]) -> None:
        """At start: what came with requests whose operations are done, or never were."""
        await asyncio.to_thread(self._clear, keep)

    def _clear(self, keep: frozenset[str]) -> None:
        if self._folder.is_dir():
            for entry in self._folder.iterdir():
                if entry.name not in keep:
                    shutil.rmtree(entry, ignore_errors=True)

    # ---- what both have in common

    async def _order(
        self, request: _Request, work: MergeWork | QuantizeWork, operation_id: str
    ) -> JobOrder:
        root = self._offered_root()
        source = (model_id_of(request.model) or "") if request.model else self._models.default.id
        output = request.output_model_id
        self._check_output(source, output, overwrite=request.overwrite)
        outside = self._outside.get(source)
        spec = JobSpec(
            job=operation_id,
            owner=self._owner,
            root=str(root.path),
            source=source,
            source_folder=str(outside) if outside else None,
            output=output,
            overwrite=request.overwrite,
            work=work,
            device=self._job.device,
            threads=self._job.threads,
            niceness=self._job.niceness,
        )
        estimate = await asyncio.to_thread(preflight, spec)
        return JobOrder(
            spec=spec,
            required_bytes=estimate.required_bytes,
            load_when_done=request.load_when_done,
        )

    def _offered_root(self) -> ModelsRoot:
        if self._root is None:
            raise NotOffered("the server has no models root", feature="models_root")
        return self._root

    def _check_output(self, source: str, output: str, *, overwrite: bool) -> None:
        if output == source:
            raise FieldInvalid("output_model_id", "must not be the source's own name")
        if self._models.state(output) is None:
            return
        if overwrite:
            raise ModelInUse("a model that is served is not replaced", model=model_name(output))
        raise ModelIdTaken("a model of that name is served", model=model_name(output))

    # ---- pictures

    async def _pictures(
        self, owner: str, calibration: weights_service_pb2.Calibration, operation_id: str
    ) -> dict[str, str]:
        """Files of the samples' pictures by their digests, kept for the job."""
        images = [
            (f"calibration.samples[{index}].image", sample.image)
            for index, sample in enumerate(calibration.samples)
            if sample.HasField("image")
        ]
        attachments = Attachments(
            inline=tuple(Encoded.of(image.inline_data) for _, image in images if not image.media),
            named=tuple(
                NamedMedia(
                    digest=digest_of(image.media) or "", is_video=False, field=f"{field}.media"
                )
                for field, image in images
                if image.media
            ),
        )
        with self._media.pinned(owner, attachments.digests):
            await self._library.take(owner, attachments)
            served = self._models.with_pictures()
            if served is None and images:
                raise NotOffered("no model that is served takes pictures", feature="images")
            kept: dict[str, str] = {}
            for digest in dict.fromkeys(attachments.digests):
                source = self._media.source(digest)
                assert served is not None, "there are pictures"
                with served.held() as engine:
                    await engine.examine(source)
                path = self.folder_of(operation_id) / digest
                await asyncio.to_thread(_keep, source.path, path)
                kept[digest] = str(path)
        return kept


def quantize_work(request: weights_service_pb2.QuantizeRequest) -> QuantizeWork:
    """`image` of its samples holds digests, until the files are known."""
    chosen: dict[str, object] = {}
    if request.HasField("group_size"):
        chosen["group_size"] = request.group_size
    if request.calibration.HasField("max_sample_tokens"):
        chosen["max_sample_tokens"] = request.calibration.max_sample_tokens
    for name in ("max_perplexity_ratio", "max_mean_kl", "min_top1_agreement"):
        if request.thresholds.HasField(name):
            chosen[name] = getattr(request.thresholds, name)
    is_nearest = request.method == operation_pb2.ROUNDING_METHOD_NEAREST
    return QuantizeWork(
        method="rtn" if is_nearest else "awq",
        samples=tuple(_sample(sample) for sample in request.calibration.samples),
        dtype=_DTYPES.get(request.dtype, "float16"),
        **chosen,  # type: ignore[arg-type]
    )


def _sample(sample: weights_service_pb2.CalibrationSample) -> SampleSpec:
    image = None
    if sample.HasField("image"):
        image = digest_of(sample.image.media) or Encoded.of(sample.image.inline_data).digest
    return SampleSpec(
        text=sample.text,
        answer=sample.answer or None,
        image=image,
        adapter=sample.adapter or BASE_ADAPTER,
    )


def _keep(source: Path, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            os.link(source, target)
        except OSError:  # another file system, or one without links
            shutil.copyfile(source, target)
    except OSError as error:
        raise StoreUnavailable("a sample's picture cannot be kept", errno=error.errno) from error
