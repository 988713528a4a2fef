"""Three pictures in one question, and a seed: asked again, the answer is the same.

python clients/python/examples/compare_cars.py CAR CAR CAR [SERVER]
"""

import sys

import ixc_client

QUESTION = (
    "I want to buy a car from the three given cars, "
    "analyze their advantages and weaknesses one by one"
)


def main(first: str, second: str, third: str, server: str | None = None) -> None:
    sampling = ixc_client.Sampling(top_k=0, top_p=0.8, seed=89247526689433939)
    with ixc_client.Client(server) if server else ixc_client.launch("demo") as ixc:
        cars = [first, second, third]  # which the prompt calls Image1, Image2 and Image3
        count = ixc.count(QUESTION, images=cars)
        print(f"{count.image_tokens} of {count.total_tokens} tokens are the pictures'\n")
        print(ixc.generate(QUESTION, images=cars, sampling=sampling))


if __name__ == "__main__":
    main(*sys.argv[1:5])
