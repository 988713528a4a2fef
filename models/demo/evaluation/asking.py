"""Puts the questions of a case to a server, one turn after the other, as a user would."""

import contextlib
import time
from collections.abc import Sequence
from typing import Protocol

import ixc_client
from models.demo.evaluation.case import Reply, Shown, Task

TRIES = 5  # of a question whose turn does not come: a busy server is no wrong answer


class Answerer(Protocol):
    """Who answers: a server, or in tests somebody who knows the answers."""

    async def answer(self, task: Task, shown: Shown, questions: Sequence[str]) -> list[Reply]:
        """A reply to each question. Raises IxcError where there is none."""
        ...


class ServerAnswerer:
    """Greedy answers over gRPC. `adapter` is every task's; "": each has its own."""

    def __init__(self, client: ixc_client.AsyncClient, adapter: str = "") -> None:
        self._client = client
        self._adapter = adapter

    async def answer(self, task: Task, shown: Shown, questions: Sequence[str]) -> list[Reply]:
        """Follow-ups meet the model's own earlier answers, right or wrong, as in a real session."""
        sampling = ixc_client.Sampling(temperature=0, max_output_tokens=task.max_output_tokens)
        media: list[ixc_client.Image | ixc_client.Video] = [
            ixc_client.Image(picture) for picture in shown.pictures
        ]
        uploaded = await self._client.upload(shown.clip) if shown.clip is not None else None
        if uploaded is not None:
            media.append(ixc_client.Video(uploaded))
        replies = []
        async with self._client.session(sampling=sampling) as chat:
            for turn, question in enumerate(questions):
                began = time.perf_counter()
                message = ixc_client.Message(*(() if turn else media), question)
                answer = await _said(chat, message, adapter=self._adapter or task.adapter)
                replies.append(
                    Reply(
                        text=answer.text,
                        is_complete=answer.finish_reason is ixc_client.FinishReason.STOP,
                        seconds=time.perf_counter() - began,
                    )
                )
        if uploaded is not None:
            await self._client.delete_media(uploaded)
        return replies


async def _said(
    chat: ixc_client.AsyncSession, message: ixc_client.Message, *, adapter: str
) -> ixc_client.Answer:
    for _ in range(TRIES - 1):
        with contextlib.suppress(ixc_client.QueueTimeout):
            return await chat.say(message, adapter=adapter)
    return await chat.say(message, adapter=adapter)


class SeveralAnswerers:
    """Servers of the same model: each case goes to the one with the fewest under way."""

    def __init__(self, answerers: Sequence[Answerer]) -> None:
        self._answerers = answerers
        self._under_way = [0] * len(answerers)

    async def answer(self, task: Task, shown: Shown, questions: Sequence[str]) -> list[Reply]:
        place = self._under_way.index(min(self._under_way))
        self._under_way[place] += 1
        try:
            return await self._answerers[place].answer(task, shown, questions)
        finally:
            self._under_way[place] -= 1
