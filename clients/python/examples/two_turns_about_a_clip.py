"""Two turns about a clip. It is sent once; the second turn computes only what is new.

python clients/python/examples/two_turns_about_a_clip.py CLIP [SERVER]
"""

import sys

import ixc_client


def main(clip: str, server: str | None = None) -> None:
    sampling = ixc_client.Sampling(top_k=50, top_p=0.8, temperature=1.0)
    with (
        ixc_client.Client(server) if server else ixc_client.launch("demo") as ixc,
        ixc.session(sampling=sampling) as chat,
    ):
        ask(chat, "Here are some frames of a video. Describe this video in detail.", clip)
        ask(chat, "What happens at its end?")


def ask(chat: ixc_client.Session, question: str, *videos: str) -> None:
    print(f"› {question}")
    with chat.stream(question, videos=videos) as stream:
        for delta in stream:
            print(delta.text, end="", flush=True)
    usage = stream.answer.usage
    print(f"\n({usage.prompt_tokens} tokens of prompt, {usage.cached_tokens} from the cache)\n")


if __name__ == "__main__":
    main(*sys.argv[1:3])
