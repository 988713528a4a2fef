"""One picture, one question, the answer as it comes.

python clients/python/examples/describe_picture.py PICTURE [SERVER]
"""

import sys

import ixc_client


def main(picture: str, server: str | None = None) -> None:
    with (
        ixc_client.Client(server) if server else ixc_client.launch("demo") as ixc,
        ixc.stream("Describe this picture in detail.", images=picture) as stream,
    ):
        for delta in stream:
            print(delta.text, end="", flush=True)
        usage = stream.answer.usage
        print(f"\n\n{usage.image_tokens} tokens of picture, {usage.output_tokens} of answer")


if __name__ == "__main__":
    main(*sys.argv[1:3])
