"""Trains the demo model's sight: `python -m models.demo.training.run STAGE --gguf FILE --out DIR`.

Two stages, each under its own budget of seconds:

    seeing      the tower learns what stands at every place of a picture, and the projector to say
                it in the language model's own embeddings (`lessons`). A projector that has already
                learnt to answer is better left as it is: `--tower-alone`
    answers     tower, projector, separators and the partial adapter (image rows alone) learn to
                answer questions, through the whole frozen language model

    python -m models.demo.training.run seeing --gguf F --out D --seconds 430 [--begin V]
    python -m models.demo.training.run answers --gguf F --out D --seconds 700 [--stop 400]
    python -m torch.distributed.run --nproc-per-node 3 -m models.demo.training.run seeing ...

A run that was stopped or killed goes on from its checkpoint under DIR, which is at most a minute
old, as is DIR/vision.safetensors. What every half minute prints is measured on seeds never trained
on: for `seeing`, the share of places named rightly; for `answers`, answers exact to the token,
each token given the right ones before it, and tasks that do badly are drawn more from then on.
`models.demo.evaluate` is the real judge.
"""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from ixc_runtime.checkpoint.gguf_llama import LlamaGguf
from models.demo.training.batches import Batch, Framer, batches
from models.demo.training.export import export_vision, load_vision, save_whole
from models.demo.training.general import answer_general_questions
from models.demo.training.judged import JUDGED, LEANT_ON, LENGTHS, judged_samples, rehearsal
from models.demo.training.language import load_language
from models.demo.training.lessons import CATEGORIES, COUNTS, Lessons, word_embeddings
from models.demo.training.loop import (
    Figures,
    Group,
    Loss,
    Plan,
    load_checkpoint,
    next_token_loss,
    run,
)
from models.demo.training.model import Canvases, DemoModel
from models.demo.training.painting import Painter
from models.demo.training.ranks import Ranks, join_ranks, leave_ranks
from models.demo.training.sizes import IMAGE, RANKS
from models.demo.training.stream import Mix, StreamSettings, load_batches

TOKENIZER = "tokenizer.json"
VISION, LESSONS = "vision.safetensors", "lessons.safetensors"
SEEN = "seen.safetensors"  # vision, adapter and lessons after the first stage
FIRST_SEED = {"seeing": 2**36, "answers": 0}
SEEDS_OF_A_RANK = 2**33
PAINTED = {"seeing": 768, "answers": 320}  # tiles beside each drawn batch
DRAWN_SHARE = 0.3  # of the loss while learning to see
LESSONS_SHARE = 0.2  # of the loss while answering: the tower goes on with what it learnt first


@dataclass(frozen=True, slots=True, kw_only=True)
class Trainee:
    """Everything a stage works on."""

    model: DemoModel
    lessons: Lessons
    framer: Framer
    device: torch.device
    ranks: Ranks


def main() -> None:
    arguments = _arguments()
    torch.manual_seed(20261122)
    ranks, device = join_ranks()
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    torch.set_float32_matmul_precision("high")
    arguments.out.mkdir(parents=True, exist_ok=True)
    if ranks.is_first and not (arguments.out / TOKENIZER).is_file():
        LlamaGguf(arguments.gguf).write_tokenizer(arguments.out / TOKENIZER)
    ranks.agree(0.0)  # the others wait for the file
    framer = Framer(arguments.out / TOKENIZER)
    language = load_language(arguments.gguf, device=device, dtype=dtype)
    trainee = Trainee(
        model=DemoModel(language, RANKS).to(device),
        lessons=Lessons(word_embeddings(language.embedding, framer.encode)).to(device),
        framer=framer,
        device=device,
        ranks=ranks,
    )
    if device.type == "cuda":
        trainee.model.compile_layers()
    {"seeing": seeing, "answers": answers}[arguments.stage](arguments, trainee)
    if device.type == "cuda" and ranks.is_first:
        print(f"peak memory {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")
    leave_ranks(ranks)


def seeing(arguments: argparse.Namespace, trainee: Trainee) -> None:
    vision, lessons = trainee.model.vision, trainee.lessons
    if arguments.begin:
        _start(arguments.begin, trainee)
    painter = _painter(arguments, trainee)

    def lesson(
        tiles: Tensor, canvases: tuple[Canvases, ...], cells: Tensor, letters: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        with _autocast(trainee.device):
            maps = vision.maps(tiles, canvases)
            merged = vision.merge(maps)
            loss, right = lessons.seeing_loss(maps, merged, cells, letters)
            if arguments.tower_alone:
                return loss, right
            # The projector alone learns to liken: the tower is to see, not to please it.
            likened = lessons.likening_loss(vision.projector.project(merged.detach()), cells)
        return loss + likened, right | {"likening": likened.detach()}

    def drawn(batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        assert batch.image is not None
        return lesson(batch.image.tiles, batch.image.canvases, batch.cells, batch.letters)

    def loss(batch: Batch) -> Tensor:
        """Of tiles painted here, many, and of a batch that was drawn, for what those lack."""
        painted = painter.paint(arguments.painted)
        value, _ = lesson(painted.tiles, (), painted.cells, painted.letters)
        return value + DRAWN_SHARE * drawn(batch)[0]

    @torch.no_grad()
    def evaluate(judged: list[Batch]) -> Figures:
        """The mean over batches, without those that show nothing of a kind."""
        names = [*CATEGORIES, *COUNTS, "character", "letter", "middle"]
        if not arguments.tower_alone:
            names.append("likening")
        found: dict[str, list[float]] = {name: [] for name in names}
        for batch in judged:
            for name, value in drawn(batch.to(trainee.device))[1].items():
                if not value.isnan():
                    found[name].append(float(value))
        return {name: (sum(values), len(values)) for name, values in found.items()}

    groups = [
        Group(modules=(vision.tower,), rate=1.5e-3 * arguments.rate, by_muon=True),
        Group(
            modules=(lessons,) if arguments.tower_alone else (vision.projector, lessons),
            rate=1e-3 * arguments.rate,
        ),
    ]
    _train(arguments, trainee, groups, loss, evaluate)


def answers(arguments: argparse.Namespace, trainee: Trainee) -> None:
    model, vision, lessons = trainee.model, trainee.model.vision, trainee.lessons
    if (arguments.out / SEEN).is_file():
        seen = load_file(arguments.out / SEEN, device=str(trainee.device))
        vision.load_state_dict(_below(seen, "vision."))
        lessons.load_state_dict(_below(seen, "lessons."))
        model.adapters[IMAGE].load_state_dict(_below(seen, "adapter."))
    elif arguments.begin:
        _start(arguments.begin, trainee)
    else:
        raise SystemExit(f"there is no {SEEN} in {arguments.out}, and no --begin was given")
    painter = _painter(arguments, trainee)
    general = answer_general_questions(model, trainee.framer)
    if trainee.ranks.is_first:
        for question, answer in general[:3]:
            print(f"  {question} -> {answer}")
    lessons_share: float = arguments.lessons_share

    def loss(batch: Batch) -> Tensor:
        assert batch.image is not None
        painted = painter.paint(arguments.painted)
        with _autocast(trainee.device):
            maps = vision.maps(batch.image.tiles, batch.image.canvases)
            merged = vision.merge(maps)
            seen, _ = lessons.seeing_loss(maps, merged, batch.cells, batch.letters)
            practised = vision.maps(painted.tiles)
            more, _ = lessons.seeing_loss(
                practised, vision.merge(practised), painted.cells, painted.letters
            )
            features = vision.projector(merged, batch.image.sources)
            hidden = model.hidden(batch.token_ids, image=batch.image, features=features)
        return next_token_loss(model, hidden, batch) + lessons_share * (seen + more)

    @torch.no_grad()
    def evaluate(judged: list[Batch]) -> Figures:
        """Share of answers whose every token is the likeliest, for each task."""
        right, asked = dict.fromkeys(JUDGED, 0.0), dict.fromkeys(JUDGED, 0.0)
        for batch in judged:
            moved = batch.to(trainee.device)
            with _autocast(trainee.device):
                hidden = model.hidden(moved.token_ids, image=moved.image)
            rows = hidden.flatten(0, 1)[moved.positions]
            wrong = model.logits(rows).argmax(-1) != moved.targets
            samples = moved.positions // moved.token_ids.shape[1]
            missed = torch.zeros(len(batch.tasks), device=trainee.device)
            missed.index_add_(0, samples, wrong.float())
            for task, count in zip(batch.tasks, missed.tolist(), strict=True):
                asked[task] += 1
                right[task] += count == 0
        return {task: (right[task], asked[task]) for task in JUDGED}

    groups = [
        Group(modules=(vision.tower,), rate=5e-4 * arguments.rate, by_muon=True),
        Group(modules=(vision.projector, lessons), rate=8e-4 * arguments.rate),
        Group(modules=(model.adapters[IMAGE],), rate=2e-3 * arguments.rate),
    ]
    _train(arguments, trainee, groups, loss, evaluate, general=general)


def _start(file: Path, trainee: Trainee) -> None:
    """From what an earlier run exported, and its lessons if they lie beside it. Heads that have
    been added since start anew.
    """
    load_vision(trainee.model, file)
    beside = file.with_name(LESSONS)
    if beside.is_file():
        held = _below(load_file(beside, device=str(trainee.device)), "lessons.")
        missing, unknown = trainee.lessons.load_state_dict(held, strict=False)
        if unknown:
            raise SystemExit(f"{beside} holds lessons that nobody gives: {', '.join(unknown)}")
        if trainee.ranks.is_first:
            print(f"lessons from {beside}; new: {', '.join(missing) or 'none'}")


def _keep(arguments: argparse.Namespace, trainee: Trainee) -> None:
    """What the next stage, another run or the product starts from; each file is always whole."""
    vision, lessons = trainee.model.vision, trainee.lessons
    held = {f"lessons.{name}": tensor for name, tensor in lessons.state_dict().items()}
    if arguments.stage == "seeing":
        seen = {f"vision.{name}": tensor for name, tensor in vision.state_dict().items()}
        # Not learnt in this stage, but perhaps begun with.
        adapter = trainee.model.adapters[IMAGE].state_dict()
        seen |= {f"adapter.{name}": tensor for name, tensor in adapter.items()}
        save_whole(seen | held, arguments.out / SEEN)
    save_whole({name: value.half() for name, value in held.items()}, arguments.out / LESSONS)
    export_vision(trainee.model, arguments.out)


def _painter(arguments: argparse.Namespace, trainee: Trainee) -> Painter:
    seed = arguments.first_seed + trainee.ranks.index
    return Painter(
        trainee.device,
        seed=seed,
        word_textures=arguments.word_textures,
        crowds=arguments.crowds,
    )


def _train(  # noqa: PLR0917
    arguments: argparse.Namespace,
    trainee: Trainee,
    groups: list[Group],
    loss: Loss,
    evaluate: Callable[[list[Batch]], Figures],
    general: tuple[tuple[str, str], ...] = (),
) -> None:
    ranks = trainee.ranks
    lengths = tuple(
        replace(one, batch=max(1, one.batch // arguments.batch_divisor)) for one in LENGTHS
    )
    before = load_checkpoint(arguments.out / arguments.stage, groups)
    settings = StreamSettings(
        tokenizer_file=arguments.out / TOKENIZER,
        lengths=lengths,
        first_seed=FIRST_SEED[arguments.stage]
        + SEEDS_OF_A_RANK * ranks.index
        + arguments.first_seed
        + 2 * before.samples,  # more are drawn than used
        general=general,
    )
    plan = Plan(
        total_seconds=arguments.seconds,
        stop_seconds=arguments.stop or arguments.seconds,
        batches_per_step=arguments.batches_per_step,
        log_every=arguments.log_every,
    )
    samples = judged_samples(arguments.judged, trainee.framer)
    pad = trainee.framer.pad
    mine = iter(samples[ranks.index :: ranks.count])
    judged = list(batches(mine, lengths, pad, rest=True))
    mix = Mix()
    data = load_batches(settings, mix, num_workers=arguments.workers)

    def lean(figures: Mapping[str, float]) -> None:
        mix.lean({task: figures[task] for task in LEANT_ON})

    for batch in rehearsal(samples, lengths, pad):
        loss(batch.to(trainee.device)).backward()  # type: ignore[no-untyped-call]
    for group in groups:
        for module in group.modules:
            module.zero_grad(set_to_none=True)
    done = run(
        plan,
        groups,
        data,
        loss,
        checkpoint=arguments.out / arguments.stage,
        evaluate=lambda: evaluate(judged),
        learn_of=lean if arguments.stage == "answers" else None,
        keep=lambda: _keep(arguments, trainee),
        ranks=ranks,
    )
    if ranks.is_first:
        print(f"{arguments.stage}: {done}", flush=True)


def _below(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in state.items()
        if name.startswith(prefix)
    }


def _autocast(device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train the demo model's sight.")
    parser.add_argument("stage", choices=["seeing", "answers"])
    parser.add_argument("--gguf", type=Path, required=True, help="SmolLM2-135M-Instruct as GGUF")
    parser.add_argument("--out", type=Path, required=True, help="checkpoints and results")
    parser.add_argument("--seconds", type=float, default=600, help="the whole stage's budget")
    parser.add_argument("--stop", type=float, help="stop after so many of these seconds")
    parser.add_argument("--begin", type=Path, help="begin with this vision.safetensors")
    parser.add_argument("--workers", type=int, default=14, help="of each rank: processes that draw")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--batch-divisor", type=int, default=1, help="smaller batches, for a trial")
    parser.add_argument("--batches-per-step", type=int, default=2)
    parser.add_argument("--painted", type=int, help="tiles painted for each batch")
    parser.add_argument("--log-every", type=int, default=50)
    parser.add_argument("--judged", type=int, default=48, help="fresh examples of each task")
    parser.add_argument(
        "--crowds", type=float, default=0.0, help="share of painted tiles that show many shapes"
    )
    parser.add_argument("--word-textures", type=int, default=30_000)
    parser.add_argument("--lessons-share", type=float, default=LESSONS_SHARE)
    parser.add_argument("--tower-alone", action="store_true", help="seeing: spare the projector")
    parser.add_argument("--rate", type=float, default=1.0, help="scales every learning rate")
    arguments = parser.parse_args()
    if arguments.painted is None:
        arguments.painted = PAINTED[arguments.stage]
    return arguments


if __name__ == "__main__":
    main()
