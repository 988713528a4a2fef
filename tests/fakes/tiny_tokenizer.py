"""Small tokenizers of both kinds, trained once per test process from a page of text.

They have the shape of the real ones (reserved pieces, byte fallback, no normalisation), so code
that works with them works with the published files. Ids differ: ask for pieces by name.
"""

import functools
import io
import json
from pathlib import Path

START_OF_TURN = "[UNUSED_TOKEN_146]"
END_OF_TURN = "[UNUSED_TOKEN_145]"
RESERVED_PIECES = tuple(f"[UNUSED_TOKEN_{i}]" for i in range(147))
CHATML_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")

# What ixc.json says beside a tokenizer.json with ChatML tokens (no begin of text, as SmolLM2).
CHATML_ROLES = {
    "begin_of_text": None,
    "start_of_turn": "<|im_start|>",
    "end_of_turn": "<|im_end|>",
    "end_of_text": "<|endoftext|>",
}

_CORPUS = """\
The harbour was quiet in the early morning, before the first of the fishing boats came back.
A woman in a red coat walked her dog along the wall and counted the gulls on the roof.
user assistant system Image1 Image2 Image3; What is in this picture? Describe the image in detail.
There are two dogs, three cats and a yellow bicycle in front of the old house with a green door.
How many people can you see? I can see 12 people: 4 sitting at the table and 8 standing outside.
Please write a web page about the weather in Paris, the capital of France, with a short title.
<html><head><title>Weather</title></head><body class="main"><h1>Paris</h1></body></html>
def main(argument: str) -> None:\n    for index, value in enumerate(argument):\n        print(value)
The quick brown fox jumps over the lazy dog. She sells sea shells by the sea shore; he buys them.
In the beginning there was nothing but water, and then slowly the land rose out of the waves.
Numbers such as 0, 1, 2, 3, 5, 8, 13, 21, 34, 55 and 89 follow from the two that stand before them.
Could you tell me which of these two photographs was taken first, and how you know that? Thank you.
\u4f60\u597d\uff0c\u8bf7\u63cf\u8ff0\u8fd9\u5f20\u56fe\u7247\u3002\u8fd9\u662f\u4e00\u53ea\u732b\uff0c\u5b83\u5750\u5728\u6905\u5b50\u4e0a\u3002
\u8fd9\u4e24\u5f20\u7167\u7247\u6709\u4ec0\u4e48\u4e0d\u540c\uff1f\u7b2c\u4e00\u5f20\u56fe\u7247\u91cc\u6709\u4e00\u53ea\u72d7\u3002
Every evening the light from the tower crossed the bay, and everybody in the village went to sleep.
The report says that production increased during the second quarter while prices remained stable.
"""


def write_tokenizer_model(folder: Path, *, vocab_size: int = 1000) -> Path:
    """Write a SentencePiece `tokenizer.model` into the folder; any size from 560 to 1200."""
    path = folder / "tokenizer.model"
    path.write_bytes(trained_sentencepiece(vocab_size))
    return path


def write_tokenizer_json(folder: Path, *, vocab_size: int = 700) -> Path:
    """Write a byte-level BPE `tokenizer.json` with ChatML tokens; any size from 260 to 780."""
    path = folder / "tokenizer.json"
    path.write_text(trained_byte_level(vocab_size), encoding="utf-8")
    return path


@functools.cache
def trained_sentencepiece(vocab_size: int) -> bytes:
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(_CORPUS.splitlines()),
        model_writer=model,
        model_type="bpe",
        vocab_size=vocab_size,
        # The real file, too, has user-defined pieces that are ordinary text.
        user_defined_symbols=["\uff25", "\u2014\u2014", *RESERVED_PIECES],
        byte_fallback=True,
        character_coverage=1.0,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        split_digits=True,
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()


@functools.cache
def trained_byte_level(vocab_size: int) -> str:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        _CORPUS.splitlines(keepends=True),
        trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=list(CHATML_TOKENS),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False)
