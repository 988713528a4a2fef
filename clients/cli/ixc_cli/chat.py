"""`ixc chat`: a conversation in the terminal, or through a pipe.

On a terminal answers are rendered as they come; Ctrl-C, or /stop typed meanwhile, stops the answer
and not the program. Without a terminal each line is a message and plain text comes out, so that a
conversation can be scripted; the first error then ends it.
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial

import ixc_client
from ixc_cli import flags
from ixc_cli.chat_loop import ChatLoop
from ixc_cli.chat_view import PlainView, View
from ixc_cli.outcome import CommandError, Exit, require


def run(argv: Sequence[str]) -> int:
    args = _parser().parse_args(argv)
    if args.session and args.model:
        raise CommandError("--session goes on with the model it was begun with", Exit.USAGE)
    interactive = sys.stdin.isatty() and sys.stdout.isatty()
    view = _view(rich=interactive and not args.plain, verbose=args.verbose)
    with flags.connect(args) as ixc:
        if args.session:
            session = ixc.open_session(args.session)
            view.note(f"{session.info().turn_count} turns so far")
        else:
            session = ixc.session(
                system=flags.system(args),
                sampling=flags.sampling(args),
                model=flags.model(args),
                keep=args.keep,
            )
        with session:
            if args.keep:
                view.note(f"this is {session.name}; go on with it by --session")
            loop = ChatLoop(
                ixc,
                session,
                view,
                adapter=args.adapter,
                shown=[*flags.images(args), *flags.videos(args)],
                as_image=partial(ixc_client.Image, hd_num=args.hd_num),
                as_video=partial(flags.video, args),
                interactive=interactive,
            )
            loop.run()
    return Exit.OK


def _view(*, rich: bool, verbose: bool) -> View:
    if not rich:
        return PlainView(verbose=verbose)
    require(("rich",), extra="cli", command="ixc chat on a terminal (or use --plain)")
    from ixc_cli.rich_view import RichView

    return RichView()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ixc chat",
        description="Talk with a model. /help lists what can be typed beside messages.",
    )
    parser.add_argument(
        "--session", metavar="NAME", type=flags.given, help="go on with a session that exists"
    )
    parser.add_argument("--keep", action="store_true", help="leave the session on the server")
    parser.add_argument("--plain", action="store_true", help="no colours, no rendering")
    parser.add_argument("--verbose", "-v", action="store_true", help="figures after each answer")
    flags.add_request(parser)
    flags.add_sampling(parser)
    flags.add_connection(parser)
    return parser
