"""A long article, by the adapter that was trained for writing, as it comes.

python clients/python/examples/write_article.py [SERVER]
"""

import sys

import ixc_client

TITLE = "French Pastries: A Sweet Indulgence"


def main(server: str | None = None) -> None:
    with ixc_client.Client(server) if server else ixc_client.launch("demo") as ixc:
        # A checkpoint without the adapter writes as well as it can.
        adapter = "write" if "write" in ixc.model().adapters else "base"
        sampling = ixc_client.Sampling(max_output_tokens=8192)
        prompt = f"Please write a blog based on the title: {TITLE}"
        with ixc.stream(prompt, adapter=adapter, sampling=sampling) as stream:
            for delta in stream:
                print(delta.text, end="", flush=True)
        print(f"\n\n{stream.answer.usage.output_tokens} tokens, {stream.answer.finish_reason}")


if __name__ == "__main__":
    main(*sys.argv[1:2])
