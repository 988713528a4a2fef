"""`ixc merge-lora MODEL NAME --task web`: a new model with an adapter in its weights."""

import argparse
from collections.abc import Sequence

from ixc_cli import flags
from ixc_cli.following import follow
from ixc_cli.outcome import CommandError, Exit

_LIMITS = "--max-difference, --min-top1"


def run(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="ixc merge-lora",
        description="Merge a task, or an adapter of your own, into a model's weights. The result "
        "is compared with the source and appears under NAME whole and verified, or not at all.",
    )
    flags.add_job(parser)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--task", metavar="TASK", type=flags.given, help="a task of the checkpoint: web or write"
    )
    what.add_argument(
        "--adapter", metavar="NAME", type=flags.given, help="an adapter in the adapters root"
    )
    parser.add_argument(
        "--dtype",
        default="",
        choices=("bfloat16", "float16", "float32"),
        help="of the new weights (default: the source's)",
    )
    parser.add_argument("--max-difference", type=float, metavar="SHARE", help="of the logits")
    parser.add_argument("--min-top1", type=float, metavar="SHARE", help="of agreeing positions")
    parser.add_argument(
        "--adapters-root", metavar="FOLDER", help="where adapters are; only with --models-root"
    )
    args = parser.parse_args(argv)
    title = f"merging {args.task or args.adapter} into {args.model_name}"
    if flags.is_offline(args):
        return _offline(args, title)
    if args.adapters_root is not None:
        raise CommandError("--adapters-root goes with --models-root", Exit.USAGE)
    with flags.connect(args) as ixc:
        stream = ixc.weights.merge_lora(
            args.model_name,
            args.name,
            task=args.task or "",
            adapter=args.adapter or "",
            dtype=args.dtype,
            overwrite=args.overwrite,
            validate_only=args.validate_only,
            load_when_done=args.load,
            max_relative_difference=args.max_difference,
            min_top1_agreement=args.min_top1,
        )
        server = flags.server_text(args)
        return follow(ixc, stream, title, server=server, limits=_LIMITS, with_load=args.load)


def _offline(args: argparse.Namespace, title: str) -> int:
    from ixc_cli.offline_job import run_job
    from ixc_runtime.jobs import MergeWork

    if args.adapter and not args.adapters_root:
        raise CommandError("--adapter needs --adapters-root, to know where it is", Exit.USAGE)
    work = MergeWork(
        task=args.task,
        adapters_root=args.adapters_root,
        adapter=args.adapter,
        dtype=args.dtype or None,
        max_relative_difference=args.max_difference,
        min_top1_agreement=args.min_top1,
    )
    return run_job(work, **flags.offline_job(args), title=title, limits=_LIMITS)
