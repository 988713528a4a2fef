"""The evaluation counts right, notices what cannot see, and hides no error."""

import asyncio
import io
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

import ixc_client
from ixc_client.testing import FakeServer
from models.demo.evaluation import drawn_tasks
from models.demo.evaluation.asking import TRIES, SeveralAnswerers
from models.demo.evaluation.beforehand import drawn_beforehand
from models.demo.evaluation.case import FOLLOW_UP, RIGHT, Case, Question, Reply, Shown, Task
from models.demo.evaluation.intervals import wilson
from models.demo.evaluation.report import Failure, Report, Row, Subject
from models.demo.evaluation.run import evaluate, judge
from models.demo.evaluation.shuffling import chance, exchanged
from models.demo.evaluation.table import show_failures, table

COLOURS = ("red", "green", "blue", "white")


def case(seed: int) -> Case:
    """A picture that shows its colour to whoever reads its bytes, and a question about it."""
    colour = random.Random(seed).choice(COLOURS)
    return Case(
        seed=seed,
        shown=Shown(pictures=(f"{colour} {seed}".encode(),)),
        questions=(
            Question(
                text=f"What colour is thing {seed}?",
                expected=colour,
                judge=lambda reply: {RIGHT: reply.text == colour},
                form="colour",
                key=colour,
            ),
        ),
    )


def task(make: Callable[[int], Case] = case, **changes: object) -> Task:
    made = Task(
        name="colour",
        make=make,
        seeds=range(1000, 2**40),
        adapter="base",
        max_output_tokens=8,
        targets={RIGHT: 0.9},
        count=200,
    )
    return replace(made, **changes)


class Sighted:
    """Answers by the picture alone."""

    async def answer(self, task: Task, shown: Shown, questions: Sequence[str]) -> list[Reply]:
        colour = shown.pictures[0].split()[0].decode()
        return [Reply(text=colour, is_complete=True, seconds=0.0) for _ in questions]


class Informed:
    """Knows the truth about every question, and looks at nothing."""

    async def answer(self, task: Task, shown: Shown, questions: Sequence[str]) -> list[Reply]:
        seed = int(questions[0].split()[-1].rstrip("?"))
        return [Reply(text=case(seed).questions[0].expected, is_complete=True, seconds=0.0)]


async def row_of(answerer: Sighted | Informed, *, shuffle: bool = False, of: Task | None = None):
    rows, failures = await judge(
        answerer,
        [of or task()],
        shuffle=shuffle,
        seed=0,
        concurrency=4,
        watch=lambda name, done, total: None,
    )
    (row,) = rows
    assert len(failures) == row.answers - row.right + row.errors
    return row


@pytest.mark.parametrize("answerer", [Sighted(), Informed()])
async def test_whoever_is_right_gets_everything(answerer: Sighted | Informed) -> None:
    """Every case counts, the target is met."""
    row = await row_of(answerer)
    assert (row.cases, row.answers, row.right, row.errors) == (200, 200, 200, 0)
    assert row.rate == 1
    assert row.is_met


async def test_exchanged_pictures_ruin_answers_that_come_from_them() -> None:
    """Down to what the answers' distribution gives away, a quarter here."""
    row = await row_of(Sighted(), shuffle=True)
    assert row.chance is not None
    assert abs(row.chance - 0.25) < 0.02
    low, high = row.interval
    assert low < row.chance < high


async def test_exchanged_pictures_leave_answers_that_do_not_come_from_them() -> None:
    """A task whose answers leak otherwise stays far above chance: that is what the check shows."""
    row = await row_of(Informed(), shuffle=True)
    assert row.rate == 1
    assert row.chance is not None
    assert row.interval[0] > row.chance


async def test_another_run_seed_asks_about_other_pictures() -> None:
    """And a seed beyond what the task has is refused by name."""
    assert not set(task().seeds_of(0)) & set(task().seeds_of(1))
    with pytest.raises(ValueError, match="seed 99 of colour; 0 to 9 can be"):
        task(seeds=range(10 << 16)).seeds_of(99)


@given(st.lists(st.sampled_from(["one", "two", "clip", "none"]), max_size=30), st.integers())
def test_exchange(kinds: list[str], seed: int) -> None:
    """Everybody gives once, nobody keeps its own, and kinds stay together."""
    by_kind = {
        "one": Shown(pictures=(b"a",)),
        "two": Shown(pictures=(b"a", b"b")),
        "clip": Shown(clip=b"c"),
        "none": Shown(),
    }
    cases = [
        Case(seed=place, shown=by_kind[kind], questions=()) for place, kind in enumerate(kinds)
    ]
    pairs = exchanged(cases, seed)
    assert all(own.seed != other.seed for own, other in pairs)
    assert all(own.shown.kind == other.shown.kind for own, other in pairs)
    assert sorted(own.seed for own, _ in pairs) == sorted(other.seed for _, other in pairs)
    left_out = {each.seed for each in cases} - {own.seed for own, _ in pairs}
    assert all(kinds[each] == "none" or kinds.count(kinds[each]) == 1 for each in left_out)


def test_chance_is_that_of_pairs() -> None:
    """Over pairs of different cases alike in form, counted by hand: 2 of 5."""

    def asked(seed: int, *answers: tuple[str, str]) -> Case:
        questions = [
            Question(text="?", expected=key, judge=lambda reply: {}, form=form, key=key)
            for form, key in answers
        ]
        return Case(seed=seed, shown=Shown(), questions=tuple(questions))

    cases = [
        asked(1, ("colour", "red"), ("colour", "red")),  # a case is no partner of its own
        asked(2, ("colour", "red")),
        asked(3, ("colour", "blue"), ("count", "one")),
        asked(4, ("yes or no", "yes")),
    ]
    # red, red x red; red, red x blue; red x blue: 2 alike of 5
    assert chance(cases) == pytest.approx(2 / 5)
    assert chance(cases[3:]) is None


@pytest.mark.parametrize(
    ("right", "tries", "low", "high"),
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_interval(right: int, tries: int, low: float, high: float) -> None:
    """As published, to the fourth place."""
    assert wilson(right / tries, tries) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(0, 500), st.integers(1, 500))
def test_a_wilson_interval_holds_its_rate(right: int, tries: int) -> None:
    """Within 0 and 1, and narrower with ten times the tries."""
    rate = min(right, tries) / tries
    low, high = wilson(rate, tries)
    assert 0 <= low <= rate <= high <= 1
    narrow_low, narrow_high = wilson(rate, 10 * tries)
    assert narrow_high - narrow_low < high - low


async def test_follow_ups() -> None:
    """Are counted together for all tasks, and leave the tasks' own rows as they are."""

    def with_follow_up(seed: int) -> Case:
        first = case(seed)
        later = replace(
            first.questions[0], judge=lambda reply: {FOLLOW_UP: seed % 2 == 0}, key=None
        )
        return replace(first, questions=(*first.questions, later, later))

    asked = task(with_follow_up, targets={RIGHT: 0.9, FOLLOW_UP: None}, count=10)
    rows, failures = await judge(
        Sighted(),
        [asked, replace(asked, name="shape"), task(count=10)],
        shuffle=False,
        seed=0,
        concurrency=4,
        watch=lambda name, done, total: None,
    )
    assert [(row.task, row.name) for row in rows] == [
        ("colour", RIGHT), ("shape", RIGHT), ("colour", RIGHT), (FOLLOW_UP, RIGHT),
    ]  # fmt: skip
    assert [(row.cases, row.answers, row.right) for row in rows] == [(10, 10, 10)] * 3 + [
        (20, 40, 20)
    ]
    assert all(failure.lacks == (FOLLOW_UP,) for failure in failures)


async def test_a_property_that_was_not_announced() -> None:
    """Is a mistake of the task and never a silent row."""
    with pytest.raises(ValueError, match="judges \\['right'\\], which it does not announce"):
        await row_of(Sighted(), of=task(targets={"closed": None}))


def report_of(*rows: Row, failures: Sequence[Failure] = (), is_shuffled: bool = False) -> Report:
    subject = Subject(
        model="models/fake",
        display_name="A fake [model]",
        weights_digest="fa" * 32,
        dtype="float32",
        quantization=None,
        server_version="1",
    )
    return Report(
        subject=subject,
        adapter="",
        seed=3,
        is_shuffled=is_shuffled,
        rows=rows,
        failures=tuple(failures),
    )


ROW = Row(
    task="colour", name=RIGHT, cases=10, answers=20, right=18, errors=0, target=0.95, chance=None,
    seconds=2.5,
)  # fmt: skip
FAILURE = Failure(
    task="colour", seed=7, shown_seed=8, question="Which?", expected="red", answer="blue",
    lacks=(RIGHT,),
)  # fmt: skip


def test_a_report_as_json() -> None:
    """Comes back the same; another format is refused."""
    report = report_of(ROW, replace(ROW, name="closed", target=None), failures=[FAILURE])
    document = json.loads(json.dumps(report.to_json()))
    assert Report.from_json(document) == report
    assert document["rows"][0]["rate"] == 0.9
    assert document["rows"][0]["is_met"] is False
    with pytest.raises(ValueError, match="a report of format 99; 1 is read"):
        Report.from_json(document | {"format": 99})


def test_intervals_count_pictures() -> None:
    """Not answers: those about one picture are right or wrong together."""
    assert ROW.interval == wilson(0.9, 10)
    assert report_of(ROW).row("colour") is ROW
    with pytest.raises(KeyError, match="no row 'closed' of task 'colour'"):
        report_of(ROW).row("colour", "closed")


def test_an_error_keeps_a_target_from_being_met() -> None:
    """Whatever the rate of the rest."""
    perfect = replace(ROW, right=20)
    assert perfect.is_met
    assert replace(perfect, errors=1).is_met is False
    assert replace(perfect, answers=0, right=0, cases=0).is_met is False


def printed(report: Report) -> str:
    console = Console(width=140, record=True, file=io.StringIO())
    show_failures(console, report, 1)
    console.print(table(report))
    return console.export_text()


def test_the_table() -> None:
    """Rates, intervals, targets; failures up to the number asked for; errors always."""
    error = replace(FAILURE, lacks=(), error="QueueFull: full", answer="")
    text = printed(report_of(replace(ROW, errors=2), failures=[FAILURE, error, error]))
    assert "A fake [model]" in text
    assert "90.0 %" in text
    assert "95 %" in text
    assert "answer   blue" in text
    assert "shown 8" in text
    assert "colour: 2 more" in text
    assert "colour: 2 not answered: QueueFull: full" in text


def test_the_table_of_exchanged_pictures() -> None:
    """Chance stands in the target's place."""
    text = printed(report_of(replace(ROW, chance=0.25), is_shuffled=True))
    assert "pictures exchanged" in text
    assert "25.0 %" in text
    assert "met" not in text


# --- over gRPC


@pytest.fixture
async def client():
    with FakeServer() as server:
        async with server.async_client(retries=ixc_client.Retries(attempts=1)) as client:
            yield server, client


def with_clip(seed: int) -> Case:
    """A clip and a picture, and a follow-up that alone is judged."""
    first = Question(text="What happens?", expected="", judge=None)
    return Case(
        seed=seed,
        shown=Shown(pictures=(b"\x89PNG 1", b"\x89PNG 2"), clip=b"\0\0\0\x18ftypisom"),
        questions=(first, replace(case(seed).questions[0], text="And its colour?")),
    )


async def test_what_a_server_is_sent(client: tuple[FakeServer, ixc_client.AsyncClient]) -> None:
    """Pictures as parts of the first turn, the clip uploaded and removed, greedy, one session."""
    server, ixc = client
    server.reply("It is")
    server.reply(case(1000).questions[0].expected)
    report = await evaluate(ixc, [task(with_clip, adapter="web")], 1)
    assert report.row("colour").right == 1
    by_method = {}
    for call in server.calls:
        by_method.setdefault(call.method, []).append(call.request)
    first, second = by_method["Chat"]
    assert [part.WhichOneof("kind") for part in first.message.parts] == [
        "image", "image", "video", "text",
    ]  # fmt: skip
    assert first.message.parts[2].video.media.startswith("media/")
    assert [part.WhichOneof("kind") for part in second.message.parts] == ["text"]
    assert first.session == second.session
    assert first.adapter == "web"
    sampling = by_method["CreateSession"][0].session.default_sampling
    assert (sampling.temperature, sampling.max_output_tokens) == (0, 8)
    assert {"DeleteSession", "DeleteMedia"} <= set(by_method)
    assert report.subject.model == "models/fake"


async def test_a_servers_error(client: tuple[FakeServer, ixc_client.AsyncClient]) -> None:
    """Is told as such; the case is neither right nor wrong, and the others go on."""
    server, ixc = client
    server.fail("RESOURCE_EXHAUSTED", "QUEUE_FULL", method="Chat", message="512 are waiting")
    server.reply(case(1001).questions[0].expected)
    server.reply("mauve")
    report = await evaluate(ixc, [task()], 3, concurrency=1)
    row = report.row("colour")
    assert (row.cases, row.answers, row.right, row.errors) == (2, 2, 1, 1)
    assert row.is_met is False
    (error,) = report.errors
    assert error.error.startswith("QueueFull: 512 are waiting")
    assert [failure.answer for failure in report.failures] == ["", "mauve"]


async def test_a_server_that_is_busy(client: tuple[FakeServer, ixc_client.AsyncClient]) -> None:
    """Is asked again when a turn did not come in time, but not for ever."""
    server, ixc = client
    for _ in range(TRIES - 1):
        server.fail("DEADLINE_EXCEEDED", "QUEUE_TIMEOUT", method="Chat")
    server.reply(case(1000).questions[0].expected)
    report = await evaluate(ixc, [task()], 1)
    assert report.row("colour").right == 1

    for _ in range(TRIES):
        server.fail("DEADLINE_EXCEEDED", "QUEUE_TIMEOUT", method="Chat")
    report = await evaluate(ixc, [task()], 1)
    assert report.row("colour").errors == 1


async def test_a_server_that_is_gone(client: tuple[FakeServer, ixc_client.AsyncClient]) -> None:
    """Ends the run: hundreds of the same error would say nothing more."""
    server, ixc = client
    server.fail("UNAVAILABLE", method="Chat")
    with pytest.raises(ixc_client.ServerUnreachable):
        await evaluate(ixc, [task()], 1)


class Slow:
    """Answers when told to, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.asked_twice = asyncio.Event()
        self.may_answer = asyncio.Event()

    async def answer(self, task: Task, shown: Shown, questions: Sequence[str]) -> list[Reply]:
        self.asked.append(task.name)
        if len(self.asked) == 2:
            self.asked_twice.set()
        await self.may_answer.wait()
        return [Reply(text="red", is_complete=True, seconds=0.0) for _ in questions]


async def test_several_servers_share_the_cases() -> None:
    """Each new case goes to the one with the fewest under way."""
    servers = [Slow(), Slow(), Slow()]
    several = SeveralAnswerers(servers)
    shown = case(1).shown
    async with asyncio.TaskGroup() as group:
        for _ in range(7):
            group.create_task(several.answer(task(), shown, ["?"]))
        await asyncio.sleep(0)
        assert sorted(len(server.asked) for server in servers) == [2, 2, 3]
        for server in servers:
            server.may_answer.set()


async def test_no_place_waits_for_a_straggler() -> None:
    """The longest answers are begun first; where places are left, the next task has begun."""
    server = Slow()
    short = task(name="short", count=2)
    long = task(name="long", count=1, max_output_tokens=512)
    judging = asyncio.create_task(
        judge(
            server,
            [short, long],
            shuffle=False,
            seed=0,
            concurrency=2,
            watch=lambda name, done, total: None,
        )
    )
    await server.asked_twice.wait()
    assert server.asked == ["long", "short"]
    server.may_answer.set()
    rows, _ = await judging
    assert [row.task for row in rows] == ["short", "long"]


def test_drawn_beforehand() -> None:
    """By other processes: the same cases, which judge the same."""
    tasks = drawn_tasks(3, names=["colour", "count"])
    for plain, drawn in zip(tasks, drawn_beforehand(tasks, 1, processes=1), strict=True):
        for seed in plain.seeds_of(1):
            expected, found = plain.make(seed), drawn.make(seed)
            assert found.shown == expected.shown
            for question, other in zip(expected.questions, found.questions, strict=True):
                reply = Reply(text=question.expected, is_complete=True, seconds=0.0)
                assert (question.text, question.expected) == (other.text, other.expected)
                assert (question.judge is None) == (other.judge is None)
                if question.judge is not None and other.judge is not None:
                    assert question.judge(reply) == other.judge(reply)
