"""`ixc models`: what a server serves and could serve, or what lies in a models root."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from ixc_cli import flags
from ixc_cli.outcome import CommandError, Exit, require
from ixc_cli.table import print_table
from ixc_cli.work_bar import size_text

_HEADINGS = ("name", "state", "size", "weights", "adapters", "made from")


def run(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="ixc models", description="List the models there are.")
    flags.add_connection(parser, private=False)
    parser.add_argument(
        "--models-root", metavar="FOLDER", type=Path, help="look into this folder, without a server"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--load", metavar="NAME", type=flags.given, help="serve this one, beside the others"
    )
    what.add_argument("--unload", metavar="NAME", type=flags.given, help="serve this one no longer")
    parser.add_argument("--default", action="store_true", help="with --load: as the default")
    args = parser.parse_args(argv)
    if args.default and not args.load:
        raise CommandError("--default goes with --load", Exit.USAGE)
    if args.models_root is not None:
        if args.load or args.unload:
            raise CommandError("--load and --unload need a server", Exit.USAGE)
        if args.server is not None:
            raise CommandError("--models-root needs no server: leave out --server", Exit.USAGE)
        print_table(_HEADINGS, _stored(args.models_root))
        return Exit.OK
    with flags.connect(args) as ixc:
        if args.load:
            from ixc_cli.following import follow

            stream = ixc.weights.load(args.load, make_default=args.default)
            return follow(ixc, stream, f"loading {args.load}", server=flags.server_text(args))
        if args.unload:
            print(ixc.weights.unload(args.unload).state)
            return Exit.OK
        default = ixc.server_info().default_model
        rows = [
            (
                model.name + (" (default)" if model.name == default else ""),
                model.state,
                size_text(model.size_bytes) if model.size_bytes else "",
                model.quantization or model.dtype,
                ", ".join(model.adapters),
                " + ".join(filter(None, (model.origin, model.merged_adapter))),
            )
            for model in ixc.list_models()
        ]
    print_table(_HEADINGS, rows)
    return Exit.OK


def _stored(root: Path) -> list[tuple[str, ...]]:
    require(("ixc_runtime", "msgspec"), extra="server", command="looking into a models root")
    from ixc_runtime.errors import RuntimeFault
    from ixc_runtime.models_root import ModelsRoot

    if not root.is_dir():
        raise CommandError(f"no such folder: {root}", Exit.USAGE)
    try:
        models = ModelsRoot(root).models()
    except RuntimeFault as fault:
        raise CommandError(fault.message) from fault
    rows: list[tuple[str, ...]] = []
    for model in models:
        manifest = model.manifest
        summary = manifest.result.get("summary", {}) if manifest else {}
        merged = str(summary.get("merged", ""))
        group = f"int4, groups of {summary['group_size']}" if "group_size" in summary else ""
        origin = " + ".join(filter(None, (manifest.source.name, merged))) if manifest else ""
        kind = group or str(summary.get("dtype", ""))
        rows.append((model.model_id, "", size_text(model.size_bytes), kind, "", origin))
    return rows
