"""What a job's process is told, and what it says: one msgpack value a message, length first.

The process is told Begin, and perhaps Cancel. It says any of Progress, Metric, Logged and Resumed,
and last Done or Failed. Decoding checks every field's type; nothing is executed. Free of torch.
"""

from enum import StrEnum

import msgspec

from ixc_runtime.models_root import StoredModel
from ixc_runtime.weights import (
    AgreementFigures,
    MergeSummary,
    QualityFigures,
    QuantizeSummary,
)

LENGTH_BYTES = 4
# A request's samples are texts of at most some megabytes; nothing else comes near.
MAX_FRAME_BYTES = 16 * 2**20


class SampleSpec(msgspec.Struct, frozen=True, kw_only=True):
    """As `weights.Sample`; `image` is a file."""

    text: str
    answer: str | None = None
    image: str | None = None
    adapter: str = "base"


class MergeWork(msgspec.Struct, frozen=True, kw_only=True, tag="merge"):
    """Exactly one of `task` and `adapter`, which is a folder of `adapters_root`.

    A limit that is None takes the default for the dtype, of `weights.figures`.
    """

    task: str | None = None
    adapters_root: str | None = None
    adapter: str | None = None
    dtype: str | None = None
    max_relative_difference: float | None = None
    min_top1_agreement: float | None = None


class QuantizeWork(msgspec.Struct, frozen=True, kw_only=True, tag="quantize"):
    """No samples: the built-in ones. `group_size` None: the largest of 128, 64, 32 that fits."""

    method: str = "awq"
    group_size: int | None = None
    samples: tuple[SampleSpec, ...] = ()
    max_sample_tokens: int = 512
    dtype: str = "float16"
    max_perplexity_ratio: float = 1.05
    max_mean_kl: float = 0.2
    min_top1_agreement: float = 0.8


class JobSpec(msgspec.Struct, frozen=True, kw_only=True):
    """`source_folder` is where the model lies if not in the root under `source`, its id.

    `owner` answers for what the job leaves when it is interrupted. Threads None: all cores.
    """

    job: str
    owner: str
    root: str
    source: str
    source_folder: str | None = None
    output: str
    overwrite: bool = False
    work: MergeWork | QuantizeWork
    device: str = "cpu"
    threads: int | None = None
    niceness: int = 19


# ---- to the process


class Begin(msgspec.Struct, frozen=True, tag=True):
    spec: JobSpec


class Cancel(msgspec.Struct, frozen=True, tag=True):
    pass


ToJob = Begin | Cancel


# ---- from the process


class Progress(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """`stage_index` counts from 0. `eta_seconds` None: no rate is known yet."""

    stage: str
    stage_index: int
    stage_count: int
    fraction: float
    done: int = 0
    total: int = 0
    item: str = ""
    elapsed_seconds: float
    eta_seconds: float | None = None
    bytes_written: int = 0


class Metric(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    layer: str
    name: str
    value: float


class Severity(StrEnum):
    INFO = "info"
    WARNING = "warning"


class Logged(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    severity: Severity
    text: str


class Resumed(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """Said once the output is staged: what earlier attempts have finished; nothing, for a first."""

    kept_files: int
    kept_bytes: int


JobEvent = Progress | Metric | Logged | Resumed


class PublishedModel(msgspec.Struct, frozen=True, kw_only=True):
    model: str
    manifest_digest: str
    files: int
    size_bytes: int
    replaced: bool


class MergeResult(msgspec.Struct, frozen=True, kw_only=True, tag="merged"):
    published: PublishedModel
    summary: MergeSummary
    figures: AgreementFigures


class QuantizeResult(msgspec.Struct, frozen=True, kw_only=True, tag="quantized"):
    published: PublishedModel
    summary: QuantizeSummary
    figures: QualityFigures


JobResult = MergeResult | QuantizeResult


class Done(msgspec.Struct, frozen=True, tag=True):
    result: JobResult


class Failed(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """A fault as it crosses borders; see ixc_runtime.errors."""

    reason: str
    message: str
    metadata: dict[str, str]


FromJob = Progress | Metric | Logged | Resumed | Done | Failed

_encoder = msgspec.msgpack.Encoder()


def encode(message: ToJob | FromJob) -> bytes:
    body = _encoder.encode(message)
    assert len(body) <= MAX_FRAME_BYTES, f"a frame of {len(body)} bytes"
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


def recorded_result(model: StoredModel) -> JobResult:
    """What the job that made this model found, as its manifest has it."""
    manifest = model.manifest
    assert manifest is not None and model.digest is not None, "a job's output has a manifest"
    published = PublishedModel(
        model=model.model_id,
        manifest_digest=model.digest,
        files=len(manifest.files) + 1,
        size_bytes=model.size_bytes,
        replaced=bool(manifest.result.get("replaced")),
    )
    summary, figures = manifest.result["summary"], manifest.result["figures"]
    if manifest.kind == "merge":
        return MergeResult(
            published=published,
            summary=msgspec.convert(summary, MergeSummary),
            figures=msgspec.convert(figures, AgreementFigures),
        )
    return QuantizeResult(
        published=published,
        summary=msgspec.convert(summary, QuantizeSummary),
        figures=msgspec.convert(figures, QualityFigures),
    )
