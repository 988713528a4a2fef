"""A job from its first byte read to the name that is published. Knows no processes and no wire.

reading      every input file is hashed: what the manifest names, and what tells this work from
             other work, so that an interrupted attempt can be taken over
making       `weights.merge` or `weights.quantize`, into the staged folder
verifying    every output file is read back and compared with what was written
comparing    the new model beside its source; beyond the caller's limits nothing is published
publishing   the manifest, and then the name
"""

import hashlib
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec
import torch

from ixc_runtime.config import load_config
from ixc_runtime.errors import MemoryLow
from ixc_runtime.jobs.messages import (
    JobResult,
    JobSpec,
    Logged,
    MergeWork,
    Metric,
    QuantizeWork,
    Resumed,
    Severity,
    recorded_result,
)
from ixc_runtime.jobs.output import StagedOutput
from ixc_runtime.jobs.preflight import chosen_group_size
from ixc_runtime.jobs.progress import Meter, Stage
from ixc_runtime.jobs.verdict import (
    agreement_texts,
    quality_texts,
    require_agreement,
    require_quality,
)
from ixc_runtime.jobs.worker import Teller
from ixc_runtime.models_root import Disk, Manifest, ModelsRoot, NamedFolders, Staging
from ixc_runtime.models_root.manifest import FileRecord, Origin, file_records, verify_files
from ixc_runtime.models_root.root import as_faults
from ixc_runtime.models_root.staging import Mark
from ixc_runtime.weights import (
    AgreementFigures,
    MergeSettings,
    MergeSummary,
    ProbeSettings,
    QualityFigures,
    QuantizeMethod,
    QuantizeSettings,
    QuantizeSummary,
    Sample,
)
from ixc_runtime.weights.awq import quantize
from ixc_runtime.weights.merge import merge
from ixc_runtime.weights.quality import check_merged, measure_quality

# What every refusal of the host's memory names, whatever else it says.
_HOST_ALLOCATOR = "DefaultCPUAllocator"
# Weights: about how long each takes beside the others, on a disk that keeps up.
_MERGE_STAGES = (
    Stage(name="reading", weight=2),
    Stage(name="merging", weight=6),
    Stage(name="verifying", weight=2),
    Stage(name="asking the source", weight=2),
    Stage(name="asking the result", weight=2),
    Stage(name="publishing", weight=0.1),
)
_QUANTIZE_STAGES = (
    Stage(name="reading", weight=1),
    Stage(name="quantising layers", weight=40),
    Stage(name="writing the rest", weight=1),
    Stage(name="verifying", weight=1),
    Stage(name="asking the source", weight=3),
    Stage(name="asking the result", weight=3),
    Stage(name="publishing", weight=0.1),
)


def run_job(spec: JobSpec, teller: Teller, disk: Disk | None = None) -> JobResult:
    """Does the job, or takes it up. Leaves its staged folder to whoever began it to discard."""
    root = ModelsRoot(Path(spec.root), disk)
    if (made := root.published(spec.job, spec.output)) is not None:
        return recorded_result(made)
    root.check_output(spec.output, overwrite=spec.overwrite)
    with memory_faults(spec.device):
        return _Job(spec, root, teller).run()


@contextmanager
def memory_faults(device: str) -> Iterator[None]:
    """Where memory ends: nothing is wrong with the job, which may do where more is free."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise _memory_low(device) from error
    except RuntimeError as error:
        # torch has no class of its own for what the host refuses.
        if _HOST_ALLOCATOR not in str(error):
            raise
        raise _memory_low("cpu") from error


def _memory_low(device: str) -> MemoryLow:
    return MemoryLow(f"the job needs more memory than is free on {device}", device=device)


class _Job:
    def __init__(self, spec: JobSpec, root: ModelsRoot, teller: Teller) -> None:
        self._spec = spec
        self._root = root
        self._teller = teller
        self._staging: Staging | None = None
        self._stages = _MERGE_STAGES if isinstance(spec.work, MergeWork) else _QUANTIZE_STAGES
        self._meter = Meter(
            self._stages,
            teller.tell,
            clock=time.monotonic,
            bytes_written=self._bytes_written,
        )

    def run(self) -> JobResult:
        spec = self._spec
        with as_faults(), ExitStack() as stack:
            folder = self._source(stack)
            adapter = self._adapter(stack)
            self.begin("reading")
            source = self._origin(spec.source, folder)
            added = self._origin(adapter.name, adapter.folder) if adapter else None
            mark = Mark(
                job=spec.job,
                owner=spec.owner,
                output=spec.output,
                identity=_identity(spec, source, added),
            )
            staging = stack.enter_context(self._root.stage(mark))
            self._staging = staging
            self._teller.tell(Resumed(kept_files=len(staging.files), kept_bytes=staging.num_bytes))
            summary, figures = self._made(folder, adapter, staging)
            self.begin("publishing")
            replaced = self._root.check_output(spec.output, overwrite=spec.overwrite)
            manifest = Manifest(
                job=spec.job,
                kind="merge" if isinstance(spec.work, MergeWork) else "quantize",
                model=spec.output,
                create_time=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                made_with=_versions(),
                source=source,
                adapter=added,
                settings=_settings(spec),
                result=_plain({"summary": summary, "figures": figures, "replaced": replaced}),
                files=dict(staging.files),
            )
            model = self._root.publish(staging, manifest, overwrite=spec.overwrite)
        return recorded_result(model)

    # ---- inputs

    def _source(self, stack: ExitStack) -> Path:
        """The source's folder, held open: swapping its name for a link changes nothing."""
        spec = self._spec
        if spec.source_folder is not None:
            return Path(spec.source_folder)
        return stack.enter_context(self._root.held(spec.source))

    def _adapter(self, stack: ExitStack) -> "_Adapter | None":
        work = self._spec.work
        if not isinstance(work, MergeWork) or work.adapter is None:
            return None
        assert work.adapters_root is not None, "an adapter lies in the adapters root"
        folders = NamedFolders(Path(work.adapters_root), "adapters")
        return _Adapter(work.adapter, stack.enter_context(folders.held(work.adapter)))

    def _origin(self, name: str, folder: Path) -> Origin:
        disk = self._root.disk
        opened = disk.open_root(folder)
        try:
            names = [each for each in disk.names(opened) if (folder / each).is_file()]
            total = sum((folder / each).stat().st_size for each in names)
            tell = self._bytes_of(total)
            threads = self._threads
            return Origin(
                name=name,
                files=file_records(disk, opened, names, tell, threads=threads, follow=True),
            )
        finally:
            disk.close(opened)

    @property
    def _threads(self) -> int:
        return self._spec.threads or min(8, os.cpu_count() or 1)

    # ---- the work

    def _made(
        self, folder: Path, adapter: "_Adapter | None", staging: Staging
    ) -> tuple[MergeSummary | QuantizeSummary, AgreementFigures | QualityFigures]:
        work, output = self._spec.work, StagedOutput(staging, self._teller.check)
        if isinstance(work, MergeWork):
            settings = MergeSettings(
                task=work.task,
                adapter=adapter.folder if adapter else None,
                name=adapter.name if adapter else "",
                dtype=work.dtype,
                device=self._spec.device,
            )
            summary = merge(folder, output, settings, _StageReport(self, "merging"))
            self._verify(staging)
            report = _StageReport(self, "asking the source", "asking the result")
            agreement = check_merged(folder, output.folder, settings, report)
            self._tell(agreement_texts(agreement))
            require_agreement(agreement, work)
            return summary, agreement
        quantized = self._quantized(work, folder, output)
        self._verify(staging)
        report = _StageReport(self, "asking the source", "asking the result")
        probes = ProbeSettings(device=self._spec.device)
        quality = measure_quality(folder, output.folder, probes, report)
        self._tell(quality_texts(quality))
        require_quality(quality, work)
        return quantized, quality

    def _quantized(self, work: QuantizeWork, folder: Path, output: StagedOutput) -> QuantizeSummary:
        settings = QuantizeSettings(
            method=QuantizeMethod(work.method),
            group_size=chosen_group_size(work, load_config(folder)),
            samples=tuple(
                Sample(
                    text=sample.text,
                    answer=sample.answer,
                    image=Path(sample.image) if sample.image else None,
                    adapter=sample.adapter,
                )
                for sample in work.samples
            ),
            max_sample_tokens=work.max_sample_tokens,
            dtype=work.dtype,
            device=self._spec.device,
        )
        report = _StageReport(self, "quantising layers", "writing the rest")
        return quantize(folder, output, settings, report)

    def _verify(self, staging: Staging) -> None:
        self.begin("verifying")
        tell = self._bytes_of(staging.num_bytes)
        verify_files(staging.disk, staging.model, staging.files, tell, threads=self._threads)

    # ---- telling

    def _tell(self, texts: list[str]) -> None:
        """Before they are judged: whoever is refused may want to choose other limits."""
        for text in texts:
            self.say(Logged(severity=Severity.INFO, text=text))

    def _bytes_written(self) -> int:
        return self._staging.bytes_written if self._staging else 0

    def begin(self, stage: str) -> None:
        self._teller.check()
        self._meter.begin(next(i for i, each in enumerate(self._stages) if each.name == stage))

    def item(self, name: str, *, done: int, total: int) -> None:
        self._teller.check()
        self._meter.item(name, done=done, total=total)

    def _bytes_of(self, total: int) -> Callable[[str, FileRecord], None]:
        """A stage whose items are files: tells of each as it is read."""
        done = 0

        def tell(name: str, record: FileRecord) -> None:
            nonlocal done
            done += record.size
            self.item(name, done=done, total=total)

        return tell

    def say(self, event: Metric | Logged) -> None:
        self._teller.check()
        self._teller.tell(event)


class _Adapter(msgspec.Struct, frozen=True):
    name: str
    folder: Path


class _StageReport:
    """The `weights.Report` of one call, whose stages are these of the job."""

    def __init__(self, job: _Job, *stages: str) -> None:
        self._job = job
        self._stages = stages

    def stage(self, name: str, *, index: int, count: int) -> None:
        assert count == len(self._stages), f"{name}: {count} stages, {self._stages} are foreseen"
        self._job.begin(self._stages[index])

    def item(self, name: str, *, done: int, total: int) -> None:
        self._job.item(name, done=done, total=total)

    def metric(self, *, layer: str, name: str, value: float) -> None:
        self._job.say(Metric(layer=layer, name=name, value=value))

    def log(self, text: str) -> None:
        self._job.say(Logged(severity=Severity.INFO, text=text))


# ---- for the manifest


def _identity(spec: JobSpec, source: Origin, adapter: Origin | None) -> str:
    """Equal for equal work on equal inputs, wherever they lie."""
    parts = (_settings(spec), source, adapter, _versions(), _sample_digests(spec.work))
    return hashlib.sha256(msgspec.json.encode(parts, order="deterministic")).hexdigest()


def _sample_digests(work: MergeWork | QuantizeWork) -> list[str]:
    if isinstance(work, MergeWork):
        return []
    pictures = [Path(sample.image) for sample in work.samples if sample.image]
    return [hashlib.sha256(picture.read_bytes()).hexdigest() for picture in pictures]


def _settings(spec: JobSpec) -> dict[str, Any]:
    """What the work was asked to do, without where anything lay."""
    settings: dict[str, Any] = _plain(spec.work)
    settings.pop("adapters_root", None)
    samples = settings.pop("samples", [])
    for sample in samples:
        sample.pop("image", None)
    if samples:
        content = msgspec.json.encode(samples, order="deterministic")
        settings["samples"] = len(samples)
        settings["samples_digest"] = hashlib.sha256(content).hexdigest()
    return settings | {"device": spec.device}


def _plain(value: object) -> Any:
    return msgspec.to_builtins(value)


def _versions() -> dict[str, str]:
    try:
        version = metadata.version("ixc")
    except metadata.PackageNotFoundError:  # run from a source tree
        version = "source"
    return {"ixc": version, "python": platform.python_version(), "torch": str(torch.__version__)}
