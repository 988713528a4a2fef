"""MergeLora and Quantize without a server: the same job, in a process of its own, the same bar."""

import asyncio
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ixc_cli import demo_model
from ixc_cli.figures import agreement_texts, drift_texts
from ixc_cli.outcome import CommandError, Exit, require
from ixc_cli.work_bar import Step, WorkBar, size_text, work_bar

if TYPE_CHECKING:
    from ixc_runtime.jobs import JobEvent, JobResult, JobSpec, MergeWork, QuantizeWork

_OWNER = "offline"


def run_job(
    work: "MergeWork | QuantizeWork",
    *,
    root: Path,
    model: str,
    output: str,
    overwrite: bool,
    validate_only: bool,
    device: str,
    title: str,
    limits: str,
) -> int:
    """`model`: an id in the root, a folder by its path, or `demo`. `limits` are the flags that say
    how good the result must be.
    """
    require(("ixc_runtime", "torch", "safetensors"), extra="server", command="working offline")
    from ixc_runtime.errors import JobCancelled, QualityTooLow, RuntimeFault
    from ixc_runtime.jobs.preflight import preflight
    from ixc_runtime.models_root import ModelsRoot

    if not root.is_dir():
        raise CommandError(f"no such folder: {root}", Exit.USAGE)
    spec = _spec(work, root=root, model=model, output=output, overwrite=overwrite, device=device)
    try:
        models = ModelsRoot(root)
        if cleared := models.recover(_OWNER):
            print(
                f"cleared what {len(cleared)} interrupted before; this starts anew",
                file=sys.stderr,
            )
        estimate = preflight(spec)
        if validate_only:
            print(f"would take up to {size_text(estimate.required_bytes)}", file=sys.stderr)
            return Exit.OK
        try:
            with work_bar(title) as bar:
                result = asyncio.run(_run(spec, bar))
        finally:
            models.discard(spec.job)
    except JobCancelled:
        print("stopped; nothing is left of it", file=sys.stderr)
        return Exit.INTERRUPTED
    except QualityTooLow as fault:
        raise CommandError(f"{fault.message}: {limits} ({fault.reason})") from fault
    except RuntimeFault as fault:
        field = fault.metadata.get("field")
        where = f"{field}: " if field else ""
        raise CommandError(f"{where}{fault.message} ({fault.reason})") from fault
    _report(result, root)
    return Exit.OK


def _spec(
    work: "MergeWork | QuantizeWork",
    *,
    root: Path,
    model: str,
    output: str,
    overwrite: bool,
    device: str,
) -> "JobSpec":
    import secrets

    from ixc_runtime.config import CONFIG_NAME
    from ixc_runtime.jobs import JobSpec
    from ixc_runtime.models_root import is_model_id

    source, folder = model, None
    # Any other folder of that name, as this repository's models/demo, is no model of the root's.
    if not (is_model_id(model) and (root / model / CONFIG_NAME).is_file()):
        folder = _folder_of(model).resolve()
        source = model if model == demo_model.NAME else folder.name
        if output == source:  # which a server would serve under this very name
            raise CommandError(f"{output} is the source's own name; give another", Exit.USAGE)
    return JobSpec(
        job=f"offline-{secrets.token_hex(8)}",
        owner=_OWNER,
        root=str(root.resolve()),
        source=source,
        source_folder=str(folder) if folder else None,
        output=output,
        overwrite=overwrite,
        work=work,
        device=device,
        niceness=0,
    )


def _folder_of(model: str) -> Path:
    if model == demo_model.NAME:
        return demo_model.build()
    folder = Path(model).expanduser()
    if not folder.is_dir():
        raise CommandError(f"{model} is neither in the models root nor a folder", Exit.USAGE)
    return folder


async def _run(spec: "JobSpec", bar: WorkBar) -> "JobResult":
    from ixc_runtime.jobs import JobProcess, Logged, Progress

    def hear(event: "JobEvent") -> None:
        if isinstance(event, Progress):
            bar.step(
                Step(
                    stage=event.stage,
                    stage_index=event.stage_index + 1,
                    stage_count=event.stage_count,
                    fraction=event.fraction,
                    item=event.item,
                    eta=event.eta_seconds,
                )
            )
        elif isinstance(event, Logged):
            bar.say(event.text)

    process = JobProcess(spec)
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, process.cancel)
    return await process.run(hear)


def _report(result: "JobResult", root: Path) -> None:
    """The folder on standard output, the figures beside it."""
    from ixc_runtime.jobs import MergeResult

    size = size_text(result.published.size_bytes)
    if isinstance(result, MergeResult):
        agreement = agreement_texts(result.figures.text, result.figures.image)
        texts = [size, result.summary.dtype, *agreement]
    else:
        source = size_text(result.summary.source_bytes)
        texts = [f"{size} of {source}", *drift_texts(result.figures.text, result.figures.image)]
    print(root / result.published.model)
    print(" · ".join(texts), file=sys.stderr)
