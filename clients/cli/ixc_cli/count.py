"""`ixc count`: what a prompt costs in tokens, before anything is paid for it."""

import argparse
import dataclasses
import json
from collections.abc import Sequence

from ixc_cli import flags
from ixc_cli.outcome import Exit


def run(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="ixc count", description="Count the tokens of a prompt, its pictures and clips."
    )
    parser.add_argument("prompt", nargs="*", help="the prompt; without any, standard input is read")
    flags.add_request(parser)
    flags.add_connection(parser)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print everything as a JSON object")
    form.add_argument("--verbose", "-v", action="store_true", help="say what takes how many")
    args = parser.parse_args(argv)
    prompt = flags.prompt_text(args.prompt)
    with flags.connect(args) as ixc:
        count = ixc.count(
            prompt,
            images=flags.images(args),
            videos=flags.videos(args),
            system=flags.system(args),
            model=flags.model(args),
        )
    if args.json:
        print(json.dumps(dataclasses.asdict(count)))
        return Exit.OK
    print(count.total_tokens)
    if args.verbose:
        for path, image in zip(args.image, count.images, strict=False):
            print(
                f"{path}: {image.width}×{image.height} pixels, "
                f"{image.tiles_wide}×{image.tiles_high} tiles, {image.tokens} tokens"
            )
        for path, video in zip(args.video, count.videos, strict=False):
            print(
                f"{path}: {video.width}×{video.height} pixels, {video.frames} frames, "
                f"{video.tiles_wide}×{video.tiles_high} tiles, {video.tokens} tokens"
            )
        print(f"of {count.context_limit} tokens that prompt and answer may take together")
    return Exit.OK
