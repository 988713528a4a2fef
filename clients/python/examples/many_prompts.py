"""A list of prompts, with and without pictures: the offline pipeline.

python clients/python/examples/many_prompts.py [PICTURE …]
"""

import sys

import ixc_client


def main(pictures: list[str]) -> None:
    prompts: list[ixc_client.PromptLike] = [
        "What is the capital of France?",
        "Name three primary colours.",
        *(("What is in this picture?", picture) for picture in pictures),
    ]
    sampling = ixc_client.Sampling(temperature=0, max_output_tokens=64)
    with ixc_client.launch("demo") as ixc:
        answers = ixc.generate(prompts, sampling=sampling, concurrency=8)
    for prompt, answer in zip(prompts, answers, strict=True):
        print(f"{prompt}\n  {answer.text}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
