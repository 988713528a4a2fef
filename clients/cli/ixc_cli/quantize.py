"""`ixc quantize MODEL NAME`: a new model with weights of 4 bits."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import ixc_client
from ixc_cli import flags
from ixc_cli.following import follow
from ixc_cli.outcome import CommandError, Exit

_LIMITS = "--max-perplexity-ratio, --max-mean-kl, --min-top1"


def run(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="ixc quantize",
        description="Round a model's weights to 4 bits, activation-aware. The result is compared "
        "with the source and appears under NAME whole and verified, or not at all. The default "
        "limits are for models of billions of parameters; a small one, as `demo`, loses more.",
    )
    flags.add_job(parser)
    parser.add_argument("--method", default="awq", choices=("awq", "nearest"))
    parser.add_argument("--group-size", type=int, choices=(128, 64, 32))
    parser.add_argument(
        "--samples",
        type=Path,
        metavar="FILE",
        help="texts to calibrate with, one a line; without it a small built-in set",
    )
    parser.add_argument(
        "--dtype",
        default="",
        choices=("bfloat16", "float16"),
        help="of scales and of what is not rounded (default: float16)",
    )
    parser.add_argument("--max-perplexity-ratio", type=float, metavar="X", help="default: 1.05")
    parser.add_argument("--max-mean-kl", type=float, metavar="NATS", help="default: 0.2")
    parser.add_argument("--min-top1", type=float, metavar="SHARE", help="default: 0.8")
    args = parser.parse_args(argv)
    title = f"quantising {args.model_name}"
    samples = _samples(args.samples)
    if flags.is_offline(args):
        return _offline(args, samples, title)
    with flags.connect(args) as ixc:
        stream = ixc.weights.quantize(
            args.model_name,
            args.name,
            rounding=ixc_client.Rounding(args.method),
            group_size=args.group_size,
            samples=samples,
            dtype=args.dtype,
            overwrite=args.overwrite,
            validate_only=args.validate_only,
            load_when_done=args.load,
            max_perplexity_ratio=args.max_perplexity_ratio,
            max_mean_kl=args.max_mean_kl,
            min_top1_agreement=args.min_top1,
        )
        server = flags.server_text(args)
        return follow(ixc, stream, title, server=server, limits=_LIMITS, with_load=args.load)


def _samples(path: Path | None) -> list[str]:
    if path is None:
        return []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise CommandError(f"cannot read {path}: {error.strerror}", Exit.USAGE) from error
    except UnicodeDecodeError as error:
        raise CommandError(f"cannot read {path}: it is no UTF-8 text", Exit.USAGE) from error
    return [line for line in lines if line.strip()]


def _offline(args: argparse.Namespace, samples: list[str], title: str) -> int:
    from ixc_cli.offline_job import run_job
    from ixc_runtime.jobs import QuantizeWork, SampleSpec

    chosen = {
        "dtype": args.dtype or None,
        "max_perplexity_ratio": args.max_perplexity_ratio,
        "max_mean_kl": args.max_mean_kl,
        "min_top1_agreement": args.min_top1,
    }
    work = QuantizeWork(
        method="rtn" if args.method == "nearest" else "awq",
        group_size=args.group_size,
        samples=tuple(SampleSpec(text=text) for text in samples),
        **{name: value for name, value in chosen.items() if value is not None},
    )
    return run_job(work, **flags.offline_job(args), title=title, limits=_LIMITS)
