"""Flags that several commands share: where the server is, what the prompt is, how to sample."""

import argparse
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TypedDict

import ixc_client
from ixc_cli.outcome import CommandError, Exit

DEFAULT_SERVER = "localhost:50051"


def add_connection(parser: argparse.ArgumentParser, *, private: bool = True) -> None:
    """`private`: whether a server of one's own, gone with the command, would be of any use."""
    group = parser.add_argument_group("server")
    group.add_argument(
        "--server",
        metavar="ADDRESS",
        type=given,
        help=f"host:port or unix:PATH of a running server (default: {DEFAULT_SERVER})",
    )
    if private:
        group.add_argument(
            "--model",
            metavar="MODEL",
            type=given,
            help="with --server: the name of one that it serves; without: start a private server "
            "for this checkpoint folder, or for `demo`",
        )
    else:
        parser.set_defaults(model=None)
    group.add_argument("--tls", action="store_true", help="speak TLS to --server")
    group.add_argument("--ca", metavar="FILE", type=Path, help="trust this certificate (PEM)")


def connect(args: argparse.Namespace) -> ixc_client.Client:
    """A client of the server the flags name; a private one is started first."""
    if args.model is not None and args.server is None:
        if args.tls or args.ca:
            raise CommandError("--tls and --ca go with --server", Exit.USAGE)
        print(f"starting a private server for {args.model} …", file=sys.stderr)
        return ixc_client.launch(args.model)
    tls = ixc_client.Tls(root_certificates=args.ca) if args.tls or args.ca else None
    return ixc_client.Client(args.server or DEFAULT_SERVER, tls=tls)


def server_text(args: argparse.Namespace) -> str:
    """The flags that lead to the same server, for another command; "" is the usual one."""
    words = ["--server", args.server] if args.server else []
    if args.tls:
        words.append("--tls")
    if args.ca:
        words += ["--ca", str(args.ca)]
    return "".join(f"{word} " for word in map(shlex.quote, words))


def model(args: argparse.Namespace) -> str:
    """Of those that the server has; "" is its default, and what a private one has."""
    return args.model if args.model and args.server else ""


def given(text: str) -> str:
    """A name on the command line. An empty one comes of a variable that is not set."""
    if not text.strip():
        raise argparse.ArgumentTypeError("a name is expected, not an empty text")
    return text


def add_job(parser: argparse.ArgumentParser) -> None:
    """Of work that makes a model: from which, under what name, and who does it."""
    parser.add_argument("model_name", metavar="MODEL", type=given, help="the source, by its name")
    parser.add_argument(
        "name", metavar="NAME", type=given, help="the new model's name in the models root"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a model of that name")
    parser.add_argument("--validate-only", action="store_true", help="check, and do nothing")
    parser.add_argument("--load", action="store_true", help="let the server serve it when done")
    add_connection(parser, private=False)
    offline = parser.add_argument_group("without a server")
    offline.add_argument(
        "--models-root",
        metavar="FOLDER",
        type=Path,
        help="do the work here and put NAME into this folder; MODEL may then be a path, or `demo`",
    )
    offline.add_argument("--device", choices=("cpu", "cuda"), help="where to work (default: cpu)")


def is_offline(args: argparse.Namespace) -> bool:
    """Whether the work is done here. What would count only elsewhere is refused, not ignored."""
    if args.models_root is None:
        if args.device is not None:
            raise CommandError("--device goes with --models-root; a server has its own", Exit.USAGE)
        return False
    if args.server is not None:
        raise CommandError("--models-root needs no server: leave out --server", Exit.USAGE)
    if args.load:
        raise CommandError("--load needs a server, and --models-root does without", Exit.USAGE)
    return True


class OfflineJob(TypedDict):
    """What `offline_job.run_job` takes of the flags."""

    root: Path
    model: str
    output: str
    overwrite: bool
    validate_only: bool
    device: str


def offline_job(args: argparse.Namespace) -> OfflineJob:
    return OfflineJob(
        root=args.models_root,
        model=args.model_name,
        output=args.name,
        overwrite=args.overwrite,
        validate_only=args.validate_only,
        device=args.device or "cpu",
    )


def add_request(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("request")
    group.add_argument(
        "--image",
        metavar="FILE",
        action="append",
        default=[],
        help="a picture, put before the text; may be repeated. A file, or what ixc upload printed",
    )
    group.add_argument("--hd-num", type=int, metavar="N", help="most tiles of each picture")
    group.add_argument(
        "--video",
        metavar="FILE",
        action="append",
        default=[],
        help="a clip, put before the text, after the pictures; may be repeated",
    )
    group.add_argument("--max-frames", type=int, metavar="N", help="most frames of each clip")
    group.add_argument("--fps", type=float, metavar="N", help="frames for each second of a clip")
    group.add_argument("--start", type=float, metavar="SECONDS", help="where each clip begins")
    group.add_argument("--end", type=float, metavar="SECONDS", help="where each clip ends")
    group.add_argument("--adapter", default="", metavar="NAME", help="base, web, write, …")
    system = group.add_mutually_exclusive_group()
    system.add_argument("--system", metavar="TEXT", help="instructions above the conversation")
    system.add_argument(
        "--meta-instruction",
        action="store_true",
        help="the instructions that the model's authors use in chat",
    )


def add_sampling(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("sampling (defaults: the model's)")
    for name, kind, text in (
        ("temperature", float, "0 is greedy"),
        ("top-p", float, "keep the likeliest tokens up to this sum"),
        ("top-k", int, "keep so many of the likeliest tokens; 0 is off"),
        ("min-p", float, "drop what is less likely than this share of the likeliest"),
        ("repetition-penalty", float, "1 is off"),
        ("presence-penalty", float, "0 is off"),
        ("frequency-penalty", float, "0 is off"),
        ("seed", int, "the same seed gives the same answer"),
        ("max-output-tokens", int, "the longest answer"),
        ("min-output-tokens", int, "the shortest answer"),
    ):
        group.add_argument(f"--{name}", type=kind, metavar=kind.__name__.upper(), help=text)
    group.add_argument(
        "--stop", action="append", default=[], metavar="TEXT", help="end there; may be repeated"
    )
    group.add_argument(
        "--bad-word", action="append", default=[], metavar="WORD", help="never say it; repeatable"
    )


def sampling(args: argparse.Namespace) -> ixc_client.Sampling:
    return ixc_client.Sampling(
        temperature=args.temperature,
        top_p=args.top_p,
        top_k=args.top_k,
        min_p=args.min_p,
        repetition_penalty=args.repetition_penalty,
        presence_penalty=args.presence_penalty,
        frequency_penalty=args.frequency_penalty,
        seed=args.seed,
        max_output_tokens=args.max_output_tokens,
        min_output_tokens=args.min_output_tokens,
        stop_sequences=tuple(args.stop),
        bad_words=tuple(args.bad_word),
    )


def images(args: argparse.Namespace) -> list[ixc_client.Image]:
    return [ixc_client.Image(path, hd_num=args.hd_num) for path in args.image]


def video(args: argparse.Namespace, source: str | ixc_client.Media) -> ixc_client.Video:
    return ixc_client.Video(
        source, max_frames=args.max_frames, fps=args.fps, start=args.start, end=args.end
    )


def videos(args: argparse.Namespace) -> list[ixc_client.Video]:
    return [video(args, path) for path in args.video]


def system(args: argparse.Namespace) -> ixc_client.System:
    if args.meta_instruction:
        return ixc_client.SystemPreset.META_INSTRUCTION_DEFAULT
    text: str | None = args.system
    return text


def prompt_text(words: Iterable[str]) -> str:
    """The words of the command line; standard input where there are none, or for a lone "-"."""
    given = list(words)
    if given and given != ["-"]:
        return " ".join(given)
    if not given and sys.stdin.isatty():
        raise CommandError("no prompt: give one as words, or on standard input", Exit.USAGE)
    return sys.stdin.read().rstrip("\n")
