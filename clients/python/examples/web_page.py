"""A web page from a description, by the adapter that was trained for it, without a system text.

python clients/python/examples/web_page.py FILE.html [SERVER]
"""

import sys
from pathlib import Path

import ixc_client

DESCRIPTION = (
    "A website for Research institutions. The name is Shanghai AI lab. Top Navigation Bar is blue. "
    "Below left, an image shows the logo of the lab. In the right, there is a passage of text "
    "below that describes the mission of the laboratory. There are several images to show the "
    "research projects of Shanghai AI lab."
)


def main(target: str, server: str | None = None) -> None:
    with ixc_client.Client(server) if server else ixc_client.launch("demo") as ixc:
        answer = ixc.generate(
            DESCRIPTION,
            # A checkpoint without the adapter writes as well as it can.
            adapter="web" if "web" in ixc.model().adapters else "base",
            sampling=ixc_client.Sampling(max_output_tokens=2048),
        )
    Path(target).write_text(answer.text, encoding="utf-8")
    print(f"{target}: {answer.usage.output_tokens} tokens, {answer.finish_reason}")


if __name__ == "__main__":
    main(*sys.argv[1:3])
