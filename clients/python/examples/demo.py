"""A session about a picture, from nothing: starts a server, talks with it over gRPC, stops it.

    python clients/python/examples/demo.py

What `make demo` runs. The server is the real one, in processes of its own, on a Unix socket; the
model is the demo model, whose text is SmolLM2's and whose view of pictures is untrained: it shows
the way a picture takes, not what is on it.
"""

import io
from collections.abc import Sequence

from PIL import Image, ImageDraw

import ixc_client

SIZE = (480, 320)


def main() -> None:
    print("starting a server with the demo model …", flush=True)
    with ixc_client.launch("demo") as ixc:
        model = ixc.model()
        print(f"{model.display_name}\n{model.description}\n")
        with ixc.session(sampling=ixc_client.Sampling(max_output_tokens=40, seed=7)) as chat:
            print(f"[a picture of {SIZE[0]} x {SIZE[1]}: a red disc beside a blue square]")
            ask(chat, "What is in this picture?", images=[draw_picture()])
            ask(chat, "Which of the two is red?")
        with ixc.session() as chat:
            ask(chat, "What is the capital of France?")


def ask(chat: ixc_client.Session, question: str, images: Sequence[bytes] = ()) -> None:
    """Prints the answer as it comes, then what it cost."""
    print(f"you    {question}\nmodel  ", end="")
    with chat.stream(question, images=images) as stream:
        for delta in stream:
            print(delta.text.replace("\n", "\n       "), end="", flush=True)
    usage, timings = stream.answer.usage, stream.answer.timings
    print(
        f"\n       ({usage.prompt_tokens} prompt tokens, {usage.image_tokens} of them the "
        f"picture's, {usage.cached_tokens} from the cache; first token after "
        f"{timings.first_token:.2f} s; {usage.output_tokens} tokens in {timings.total:.2f} s)\n"
    )


def draw_picture() -> bytes:
    """A PNG of a kilobyte or two, so that the example needs no file."""
    picture = Image.new("RGB", SIZE, "white")
    draw = ImageDraw.Draw(picture)
    draw.ellipse((60, 80, 220, 240), fill="red")
    draw.rectangle((270, 90, 420, 240), fill="blue")
    encoded = io.BytesIO()
    picture.save(encoded, "PNG")
    return encoded.getvalue()


if __name__ == "__main__":
    main()
