"""`ixc upload FILE …`: sends pictures and clips, and prints the names prompts can use for them.

    ixc generate "What happens?" --video "$(ixc upload holiday.mp4)"

Stopped half way, it goes on where it was when it is called again.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import ixc_client
from ixc_cli import flags
from ixc_cli.figures import media_figures
from ixc_cli.outcome import CommandError, Exit
from ixc_cli.upload_bar import upload_bar


def run(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="ixc upload", description="Send pictures and clips, and print their names."
    )
    parser.add_argument("file", nargs="+", help="PNG, JPEG, WebP, GIF, BMP, MP4, MOV, WebM, MKV")
    parser.add_argument("--ttl", type=float, metavar="SECONDS", help="how long they are kept")
    parser.add_argument("--verbose", "-v", action="store_true", help="say what was found in them")
    flags.add_connection(parser, private=False)
    args = parser.parse_args(argv)
    with flags.connect(args) as ixc:
        for path in args.file:
            media = upload(ixc, path, ttl=args.ttl)
            print(media.name, flush=True)
            if args.verbose:
                print(f"{path}: {media_figures(media)}", file=sys.stderr)
    return Exit.OK


def upload(ixc: ixc_client.Client, path: str, *, ttl: float | None = None) -> ixc_client.Media:
    try:
        with upload_bar(Path(path).name) as progress:
            return ixc.upload(path, ttl=ttl, progress=progress)
    except ixc_client.MediaUndecodable as error:  # of several files one wants to know which
        raise CommandError(f"{path}: {error}") from error
