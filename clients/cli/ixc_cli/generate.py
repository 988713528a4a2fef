"""`ixc generate`: one prompt in, one answer out.

The answer goes to standard output as it comes and nothing else does; figures and errors go to
standard error. Ctrl-C, or a reader that goes away, stops the generation on the server too.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence

import ixc_client
from ixc_cli import flags
from ixc_cli.figures import figures
from ixc_cli.outcome import Exit


def run(argv: Sequence[str]) -> int:
    args = _parser().parse_args(argv)
    prompt = flags.prompt_text(args.prompt)
    with (
        flags.connect(args) as ixc,
        ixc.stream(
            prompt,
            images=flags.images(args),
            videos=flags.videos(args),
            system=flags.system(args),
            model=flags.model(args),
            adapter=args.adapter,
            sampling=flags.sampling(args),
            output=ixc_client.Output(token_ids=args.json),
        ) as stream,
    ):
        answer = stream.read() if args.json else _print_as_it_comes(stream)
    if args.json:
        print(json.dumps(as_json(answer), ensure_ascii=False))
    if args.verbose:
        print(figures(answer), file=sys.stderr)
    return Exit.OK


def as_json(answer: ixc_client.Answer) -> dict[str, object]:
    """Everything of an answer that is worth keeping, settings that were not given left out."""
    result = dataclasses.asdict(answer)
    result["sampling"] = {
        name: value for name, value in result["sampling"].items() if value not in (None, (), {})
    }
    return result


def _print_as_it_comes(stream: ixc_client.AnswerStream) -> ixc_client.Answer:
    for delta in stream:
        sys.stdout.write(delta.text)
        sys.stdout.flush()
    answer = stream.answer
    if not answer.text.endswith("\n"):
        print()
    return answer


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ixc generate", description="Answer one prompt.")
    parser.add_argument(
        "prompt", nargs="*", help="the prompt; without any, or for -, standard input is read"
    )
    flags.add_request(parser)
    flags.add_sampling(parser)
    flags.add_connection(parser)
    parser.add_argument("--json", action="store_true", help="print the answer as a JSON object")
    parser.add_argument("--verbose", "-v", action="store_true", help="figures on standard error")
    return parser
