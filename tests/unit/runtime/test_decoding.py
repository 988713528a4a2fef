"""Text out of tokens: never half a character, never a stop sequence, whatever the chunking."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ixc_runtime.prompt.decoding import OutputText, StopMatcher, TextDecoder


class ByteTokenizer:
    """256 one-byte tokens, then words of a few bytes that need not end with a character."""

    WORDS = (b"stop", b"ab", b"\xe4\xbd", b"\xa0\xe5\xa5\xbd", b"", b"abcab", b"\xf0\x9f")

    @property
    def vocab_size(self) -> int:
        return 256 + len(self.WORDS)

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def token_bytes(self, token_id: int) -> bytes:
        return bytes([token_id]) if token_id < 256 else self.WORDS[token_id - 256]

    def piece_id(self, piece: str) -> int | None:
        return None

    def is_control(self, token_id: int) -> bool:
        return self.token_bytes(token_id) == b""


TOKENIZER = ByteTokenizer()
token_ids = st.lists(
    st.one_of(
        st.sampled_from(b"abcs \n"),
        st.integers(256, TOKENIZER.vocab_size - 1),
        st.integers(0, 255),
    ),
    max_size=30,
)
stops = st.lists(st.text("abc \n\ufffd\u4f60", min_size=1, max_size=4), max_size=3, unique=True)


def chunks_of(draw_sizes: list[int], items: list[int]) -> list[list[int]]:
    """The items cut into pieces of these sizes, the last taking what is left."""
    pieces, at = [], 0
    for size in draw_sizes:
        pieces.append(items[at : at + size])
        at += size
    return [*pieces, items[at:]]


def spelled(ids: list[int]) -> str:
    return b"".join(map(TOKENIZER.token_bytes, ids)).decode("utf-8", errors="replace")


def first_match(text: str, sequences: list[str]) -> tuple[int, str] | None:
    """By definition: the first character after which the text ends in a stop, the longest one."""
    for end in range(1, len(text) + 1):
        ending = [stop for stop in sequences if text[:end].endswith(stop)]
        if ending:
            return end, max(ending, key=len)
    return None


@given(ids=token_ids, sizes=st.lists(st.integers(0, 5)))
def test_decoded_in_pieces(ids, sizes):
    """The pieces joined are the text decoded at once, broken bytes included."""
    decoder = TextDecoder(TOKENIZER)
    parts = [decoder.push(chunk) for chunk in chunks_of(sizes, ids)]
    assert spelled(ids) == "".join(parts) + decoder.finish()


def test_half_a_character_is_held():
    """Bytes come out when the character is whole; at the end, U+FFFD."""
    decoder = TextDecoder(TOKENIZER)
    assert [decoder.push([byte]) for byte in "\u4f60".encode()] == ["", "", "\u4f60"]
    assert decoder.push(list("\u4f60".encode()[:2])) == ""
    assert decoder.finish() == "\ufffd"


@given(
    text=st.text("abc \n", max_size=40),
    sequences=st.lists(st.text("abc \n", min_size=1, max_size=5), max_size=4),
    sizes=st.lists(st.integers(0, 6)),
    include_stop=st.booleans(),
)
@example(text="xabcd", sequences=["abcd", "bc"], sizes=[1, 1, 1, 1], include_stop=False)
@example(text="aab", sequences=["ab", "aab"], sizes=[1, 1], include_stop=True)
def test_stop_sequences_in_pieces(text, sequences, sizes, include_stop):
    """The match, and the text before it, are those of the whole text however it is cut."""
    matcher = StopMatcher(sequences, include_stop=include_stop)
    emitted = "".join(matcher.push("".join(chunk)) for chunk in chunks_of(sizes, list(text)))
    emitted += matcher.finish()
    expected = first_match(text, sequences)
    if expected is None:
        assert (None, text) == (matcher.matched, emitted)
    else:
        end, stop = expected
        assert stop == matcher.matched
        assert emitted == text[: end if include_stop else end - len(stop)]


def test_nothing_is_held_without_need():
    """Text that cannot begin a stop sequence comes out at once."""
    matcher = StopMatcher(["STOP"])
    assert matcher.push("one two ST") == "one two "
    assert matcher.push("ART three") == "START three"
    assert matcher.push(" S") == " "
    assert matcher.finish() == "S"
    assert matcher.matched is None


def test_after_a_match():
    """Nothing follows a match, and nothing undoes it."""
    matcher = StopMatcher(["."])
    assert matcher.push("Yes. No.") == "Yes"
    assert matcher.push("No.") == ""
    assert matcher.finish() == ""
    assert matcher.matched == "."


def test_an_empty_stop_sequence():
    """It would match before the first word."""
    with pytest.raises(ValueError, match="empty"):
        StopMatcher(["a", ""])


@given(
    ids=token_ids,
    sequences=stops,
    sizes=st.lists(st.integers(0, 5)),
    include_stop=st.booleans(),
    min_tokens=st.integers(0, 6),
)
def test_an_answer_in_pieces(ids, sequences, sizes, include_stop, min_tokens):
    """Text, match and number of tokens do not depend on how many ids came at once."""

    def run(pieces: list[list[int]]) -> tuple[str, int, str | None]:
        output = OutputText(TOKENIZER, sequences, include_stop=include_stop, min_tokens=min_tokens)
        text, consumed = "", 0
        for piece in pieces:
            emitted = output.push(piece)
            text += emitted.text
            consumed += emitted.num_ids_consumed
        return text + output.finish().text, consumed, output.matched

    assert run([[token_id] for token_id in ids]) == run(chunks_of(sizes, ids))


@given(ids=token_ids, sequences=stops)
def test_an_answer_ends_with_its_match(ids, sequences):
    """The tokens used are the fewest whose text contains a match; text stops before it."""
    output = OutputText(TOKENIZER, sequences)
    emitted = output.push(ids)
    if emitted.matched is None:
        assert emitted.num_ids_consumed == len(ids)
        return
    used = ids[: emitted.num_ids_consumed]
    decoder = TextDecoder(TOKENIZER)
    end, stop = first_match(decoder.push(used), sequences)
    assert (stop, decoder_text(used)[: end - len(stop)]) == (emitted.matched, emitted.text)
    assert first_match(decoder_text(used[:-1]), sequences) is None


def decoder_text(ids: list[int]) -> str:
    """The complete characters of these ids."""
    return TextDecoder(TOKENIZER).push(ids)


def test_tokens_past_a_match_are_not_part_of_the_answer():
    """An engine that ran ahead hears how many of its tokens count."""
    output = OutputText(TOKENIZER, ["."])
    emitted = output.push(list(b"Yes. No."))
    assert (emitted.text, emitted.num_ids_consumed, emitted.matched) == ("Yes", 4, ".")
    assert output.push(list(b"more")).num_ids_consumed == 0
    assert output.finish().text == ""


def test_a_stop_inside_a_token():
    """What a token holds past the match is dropped, and the token still counts."""
    output = OutputText(TOKENIZER, ["bc"], include_stop=True)
    emitted = output.push([*b"x", 256 + TOKENIZER.WORDS.index(b"abcab"), *b"y"])
    assert (emitted.text, emitted.num_ids_consumed, emitted.matched) == ("xabc", 2, "bc")


def test_control_tokens_in_an_answer():
    """They count as tokens and add no text."""
    output = OutputText(TOKENIZER, ["ab"])
    emitted = output.push([*b"a", 256 + TOKENIZER.WORDS.index(b""), *b"b"])
    assert (emitted.text, emitted.num_ids_consumed, emitted.matched) == ("", 3, "ab")


def test_a_match_before_the_minimum():
    """A stop sequence that would make the answer too short is ordinary text."""
    output = OutputText(TOKENIZER, ["."], min_tokens=3)
    emitted = output.push(list(b"a.b.c"))
    assert (emitted.text, emitted.num_ids_consumed) == ("a.b", 4)


def test_a_match_across_the_minimum():
    """It may begin before the minimum as long as it ends at or after it."""
    output = OutputText(TOKENIZER, ["abc", "b"], min_tokens=3)
    emitted = output.push(list(b"abc"))
    assert (emitted.text, emitted.num_ids_consumed, emitted.matched) == ("", 3, "abc")


def test_a_match_completed_by_the_end():
    """Half a character that ends an answer is U+FFFD, and may complete a stop sequence."""
    output = OutputText(TOKENIZER, ["a\ufffd"])
    assert output.push([*b"xa", 0xE4]).text == "x"
    flushed = output.finish()
    assert (flushed.text, flushed.matched) == ("", "a\ufffd")
