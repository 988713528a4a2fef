"""Token ids into text that may be shown at once, and the search for stop sequences in it.

Both hold back what a later token could still change: bytes that are half a character, and
characters that could be the start of a stop sequence. What has been emitted is never taken back,
and the emitted parts joined are the final text.

Everything here goes **token by token**. The engine may deliver ids one at a time or, when it runs
ahead, several past the end of a stop sequence; `OutputText.push` says how many it used, so that
text, ids and the finish reason are the same either way.
"""

import codecs
from collections.abc import Sequence
from dataclasses import dataclass

from ixc_runtime.prompt.tokenizer import Tokenizer


class TextDecoder:
    """Incremental UTF-8 over the tokens' bytes. A broken sequence becomes U+FFFD."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._token_bytes = tokenizer.token_bytes
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token_ids: Sequence[int]) -> str:
        """The characters that these tokens complete."""
        return self._utf8.decode(b"".join(map(self._token_bytes, token_ids)))

    def finish(self) -> str:
        """What is held is all there will be: half a character becomes U+FFFD."""
        return self._utf8.decode(b"", final=True)


class StopMatcher:
    """Finds the stop sequence that *ends* first; of several ending together, the longest.

    That choice depends on the text alone, not on how it was cut into pieces. With `include_stop`
    the matched sequence is part of the text, otherwise the text ends before it. Nothing follows.
    """

    def __init__(self, stops: Sequence[str], *, include_stop: bool = False) -> None:
        if not all(stops):
            raise ValueError("a stop sequence is empty: it would match everywhere")
        self._stops = tuple(stops)
        self._include_stop = include_stop
        self._longest = max(map(len, self._stops), default=0)
        self._first_characters = frozenset(stop[0] for stop in self._stops)
        self._held = ""
        self.matched: str | None = None

    def push(self, text: str, *, may_match: bool = True) -> str:
        """The text that no stop sequence can claim any more.

        With `may_match` false, a sequence that ends in this text does not count; one that begins
        in it may still be matched later.
        """
        if self.matched is not None:
            return ""
        num_held = len(self._held)
        text = self._held + text
        found = [
            (at + len(stop), stop)
            for stop in self._stops
            # What ended in held text was decided then. Every possible start is in it still.
            if (at := text.find(stop, max(0, num_held + 1 - len(stop)))) >= 0
        ]
        if found and may_match:
            end, self.matched = min(found, key=lambda match: (match[0], -len(match[1])))
            self._held = ""
            return text[: end if self._include_stop else end - len(self.matched)]
        safe = len(text) - self._possible_start(text)
        self._held = text[safe:]
        return text[:safe]

    def finish(self) -> str:
        """No more text comes, so what is held is no stop sequence."""
        held, self._held = self._held, ""
        return held

    def _possible_start(self, text: str) -> int:
        """Length of the longest end of the text that begins a stop sequence."""
        for length in range(min(self._longest - 1, len(text)), 0, -1):
            # Looking at one character first spares nearly all comparisons.
            if text[-length] in self._first_characters:
                tail = text[-length:]
                if any(stop.startswith(tail) for stop in self._stops):
                    return length
        return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Emitted:
    """Text that is now final.

    `num_ids_consumed` counts the pushed ids up to and with the one that completed a match; ids
    past it are not part of the answer. Without a match it is all of them.
    """

    text: str
    num_ids_consumed: int
    matched: str | None


class OutputText:
    """One answer's text: a decoder and a matcher, fed token by token.

    No stop sequence counts that would end the answer with fewer than `min_tokens` tokens.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        stops: Sequence[str] = (),
        *,
        include_stop: bool = False,
        min_tokens: int = 0,
    ) -> None:
        self._decoder = TextDecoder(tokenizer)
        self._matcher = StopMatcher(stops, include_stop=include_stop)
        self._watches = bool(stops)
        self._min_tokens = min_tokens
        self._num_tokens = 0

    @property
    def matched(self) -> str | None:
        return self._matcher.matched

    def push(self, token_ids: Sequence[int]) -> Emitted:
        """Take ids as they come. After a match nothing is consumed and nothing comes out."""
        if not self._watches:
            text = self._decoder.push(token_ids)
            return Emitted(text=text, num_ids_consumed=len(token_ids), matched=None)
        parts: list[str] = []
        consumed = 0
        for token_id in token_ids:
            if self._matcher.matched is not None:
                break
            consumed += 1
            self._num_tokens += 1
            parts.append(self._match(self._decoder.push((token_id,))))
        return Emitted(
            text="".join(parts), num_ids_consumed=consumed, matched=self._matcher.matched
        )

    def finish(self) -> Emitted:
        """Flush what is held. Half a character flushed may itself complete a match."""
        text = ""
        if self._matcher.matched is None:
            text = self._match(self._decoder.finish()) + self._matcher.finish()
        return Emitted(text=text, num_ids_consumed=0, matched=self._matcher.matched)

    def _match(self, text: str) -> str:
        return self._matcher.push(text, may_match=self._num_tokens >= self._min_tokens)
