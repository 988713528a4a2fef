"""Trains the demo model's sight: `python -m models.demo.training.run STAGE --gguf FILE --out DIR`.

Two stages, each under its own budget of seconds:

    seeing      the tower learns what stands at every place of a picture, and the projector to say
                it in the language model's own embeddings (`lessons`)
    answers     tower, projector, separators and the partial adapter (image rows alone) learn to
                answer questions, through the whole frozen language model

    python -m models.demo.training.run seeing --gguf F --out D --seconds 150
    python -m models.demo.training.run answers --gguf F --out D --seconds 700 [--stop 400]
    python -m models.demo.training.run export --gguf F --out D

A run that was stopped goes on from its checkpoint under DIR. What every half minute prints is
measured on seeds never trained on: for `seeing`, the share of places named rightly; for `answers`,
answers exact to the token, each token given the right ones before it. `models.demo.evaluate` is
the real judge.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ixc_runtime.checkpoint.gguf_llama import LlamaGguf
from models.demo.drawing import EVALUATION_SEEDS, JUDGED_TASKS, draw
from models.demo.training.batches import Batch, Framer, Length, Sample, batches
from models.demo.training.export import export_vision, load_vision
from models.demo.training.general import answer_general_questions
from models.demo.training.language import load_language
from models.demo.training.lessons import Lessons, word_embeddings
from models.demo.training.loop import Group, Loss, Plan, load_checkpoint, next_token_loss, run
from models.demo.training.model import Canvases, DemoModel
from models.demo.training.painting import Painter
from models.demo.training.sizes import IMAGE, RANKS
from models.demo.training.stream import StreamSettings, load_batches, pictures_of

# A tile and some text; four tiles, or two pictures; a clip.
LENGTHS = (
    Length(tokens=256, batch=128),
    Length(tokens=464, batch=72),
    Length(tokens=720, batch=32),
)
TOKENIZER = "tokenizer.json"
SEEN = "seen.safetensors"  # vision and lessons after the first stage
FIRST_SEED = {"seeing": 2**36, "answers": 0}
DRAWN_SHARE = 0.3  # of the loss while learning to see
LESSONS_SHARE = 0.2  # of the loss while answering: the tower goes on with what it learnt first


@dataclass(frozen=True, slots=True, kw_only=True)
class Trainee:
    """Everything a stage works on."""

    model: DemoModel
    lessons: Lessons
    framer: Framer
    device: torch.device


def main() -> None:
    arguments = _arguments()
    torch.manual_seed(20261122)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    torch.set_float32_matmul_precision("high")
    arguments.out.mkdir(parents=True, exist_ok=True)
    if not (arguments.out / TOKENIZER).is_file():
        LlamaGguf(arguments.gguf).write_tokenizer(arguments.out / TOKENIZER)
    framer = Framer(arguments.out / TOKENIZER)
    language = load_language(arguments.gguf, device=device, dtype=dtype)
    trainee = Trainee(
        model=DemoModel(language, RANKS).to(device),
        lessons=Lessons(word_embeddings(language.embedding, framer.encode)).to(device),
        framer=framer,
        device=device,
    )
    if device.type == "cuda":
        trainee.model.compile_layers()
    {"seeing": seeing, "answers": answers, "export": export}[arguments.stage](arguments, trainee)
    if device.type == "cuda":
        print(f"peak memory {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")


def seeing(arguments: argparse.Namespace, trainee: Trainee) -> None:
    vision, lessons = trainee.model.vision, trainee.lessons
    if arguments.start:
        load_vision(trainee.model, arguments.start)
    painter = Painter(trainee.device, seed=arguments.first_seed)

    def lesson(
        tiles: Tensor, canvases: tuple[Canvases, ...], cells: Tensor, letters: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        with _autocast(trainee.device):
            maps = vision.maps(tiles, canvases)
            merged = vision.merge(maps)
            loss, right = lessons.seeing_loss(maps, merged, cells, letters)
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
    def evaluate(judged: list[Batch]) -> dict[str, float]:
        found = [drawn(batch.to(trainee.device))[1] for batch in judged]
        return {
            name: torch.stack([one[name] for one in found]).nanmean().item() for name in found[0]
        }

    groups = [
        Group(modules=(vision.tower,), rate=1.5e-3 * arguments.rate, by_muon=True),
        Group(modules=(vision.projector, lessons), rate=1e-3 * arguments.rate),
    ]
    _train(arguments, trainee, groups, loss, evaluate)
    state = {f"vision.{name}": tensor for name, tensor in vision.state_dict().items()}
    state |= {f"lessons.{name}": tensor for name, tensor in lessons.state_dict().items()}
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, arguments.out / SEEN)
    export_vision(trainee.model, arguments.out)


def answers(arguments: argparse.Namespace, trainee: Trainee) -> None:
    model, vision, lessons = trainee.model, trainee.model.vision, trainee.lessons
    seen = load_file(arguments.out / SEEN, device=str(trainee.device))
    vision.load_state_dict(_below(seen, "vision."))
    lessons.load_state_dict(_below(seen, "lessons."))
    general = answer_general_questions(model, trainee.framer)
    for question, answer in general[:3]:
        print(f"  {question} -> {answer}")

    def loss(batch: Batch) -> Tensor:
        assert batch.image is not None
        with _autocast(trainee.device):
            maps = vision.maps(batch.image.tiles, batch.image.canvases)
            merged = vision.merge(maps)
            seen, _ = lessons.seeing_loss(maps, merged, batch.cells, batch.letters)
            features = vision.projector(merged, batch.image.sources)
            hidden = model.hidden(batch.token_ids, image=batch.image, features=features)
        return next_token_loss(model, hidden, batch) + LESSONS_SHARE * seen

    @torch.no_grad()
    def evaluate(judged: list[Batch]) -> dict[str, float]:
        """Share of answers whose every token is the likeliest, for each task."""
        right: dict[str, list[bool]] = {}
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
                right.setdefault(task, []).append(count == 0)
        return {task: sum(flags) / len(flags) for task, flags in sorted(right.items())}

    groups = [
        Group(modules=(vision.tower,), rate=5e-4 * arguments.rate, by_muon=True),
        Group(modules=(vision.projector, lessons), rate=8e-4 * arguments.rate),
        Group(modules=(model.adapters[IMAGE],), rate=2e-3 * arguments.rate),
    ]
    _train(arguments, trainee, groups, loss, evaluate, general=general)
    export_vision(model, arguments.out)


def export(arguments: argparse.Namespace, trainee: Trainee) -> None:
    """The parts that are shipped, from the checkpoint of a run that was stopped."""
    vision = trainee.model.vision
    modules = (vision.tower, vision.projector, trainee.lessons, trainee.model.adapters[IMAGE])
    load_checkpoint(arguments.out / "answers", [Group(modules=modules, rate=0.0)])
    export_vision(trainee.model, arguments.out)


def _train(  # noqa: PLR0917
    arguments: argparse.Namespace,
    trainee: Trainee,
    groups: list[Group],
    loss: Loss,
    evaluate: Callable[[list[Batch]], dict[str, float]],
    general: tuple[tuple[str, str], ...] = (),
) -> None:
    lengths = tuple(
        replace(one, batch=max(1, one.batch // arguments.batch_divisor)) for one in LENGTHS
    )
    settings = StreamSettings(
        tokenizer_file=arguments.out / TOKENIZER,
        lengths=lengths,
        first_seed=FIRST_SEED[arguments.stage] + arguments.first_seed,
        general=general,
    )
    plan = Plan(
        total_seconds=arguments.seconds,
        stop_seconds=arguments.stop or arguments.seconds,
        batches_per_step=arguments.batches_per_step,
        log_every=arguments.log_every,
    )
    judged = list(batches(iter(_judged(arguments.judged, trainee.framer)), lengths, 0, rest=True))
    data = load_batches(settings, num_workers=arguments.workers)
    done = run(
        plan,
        groups,
        data,
        loss,
        checkpoint=arguments.out / arguments.stage,
        evaluate=lambda: evaluate(judged),
    )
    print(f"{arguments.stage}: {done}")


def _judged(count: int, framer: Framer) -> list[Sample]:
    """The same fresh examples every time: the first turn of `count` for each task."""
    samples = []
    for task in (*JUDGED_TASKS, "describe"):
        for index in range(count):
            example = draw(task, EVALUATION_SEEDS.start + 10**9 + index)
            first = example.turns[0]
            turns = [(first.question, first.answer)]
            samples.append(framer.chat(turns, pictures_of(example), task=task))
    return samples


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
    parser.add_argument("stage", choices=["seeing", "answers", "export"])
    parser.add_argument("--gguf", type=Path, required=True, help="SmolLM2-135M-Instruct as GGUF")
    parser.add_argument("--out", type=Path, required=True, help="checkpoints and results")
    parser.add_argument("--seconds", type=float, default=600, help="the whole stage's budget")
    parser.add_argument("--stop", type=float, help="stop after so many of these seconds")
    parser.add_argument("--start", type=Path, help="seeing: begin with this vision.safetensors")
    parser.add_argument("--workers", type=int, default=15, help="processes that draw")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--batch-divisor", type=int, default=1, help="smaller batches, for a trial")
    parser.add_argument("--batches-per-step", type=int, default=2)
    parser.add_argument("--painted", type=int, default=768, help="tiles painted for each batch")
    parser.add_argument("--log-every", type=int, default=50)
    parser.add_argument("--judged", type=int, default=48, help="fresh examples of each task")
    parser.add_argument("--rate", type=float, default=1.0, help="scales every learning rate")
    return parser.parse_args()


if __name__ == "__main__":
    main()
