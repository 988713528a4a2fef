"""Trains the adapters: `python -m models.demo.writing.train_adapters STAGE --gguf F --out D`.

    draft   SmolLM2 writes the paragraphs that articles are made of: D/bank.json
    web     lora_web: instructions to pages, and screenshots too if D/vision.safetensors is there
    sft     lora_sft: titles to articles
    dpo     lora_dpo, on top of lora_sft: away from what goes in circles and off the topic; kept
            only if no fewer unseen articles pass with it than without, else put back to nothing
    judge   how the adapters do on unseen instructions and titles, before anything is exported

Each of the three trains under its own budget of seconds and goes on from its checkpoint in D. The
language model is frozen throughout, and the sight too. At the end of a stage its adapter is judged
and exported: D/web.safetensors; D/write.safetensors with sft and, once there is one, dpo.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ixc_runtime.checkpoint.gguf_llama import LlamaGguf
from models.demo.training.batches import Batch, Framer, Length
from models.demo.training.export import export_adapters, load_adapters, load_vision
from models.demo.training.language import load_language
from models.demo.training.loop import Group, Plan, load_checkpoint, next_token_loss, run
from models.demo.training.model import Adapter, DemoModel
from models.demo.training.sizes import IMAGE, RANKS
from models.demo.writing.checks import judge_article, judge_page
from models.demo.writing.drafts import draft_bank, read_bank, write_bank
from models.demo.writing.lessons import (
    AnyLessons,
    ArticleLessons,
    PreferenceLessons,
    WebLessons,
    load_lessons,
)
from models.demo.writing.pages import draw_page
from models.demo.writing.preference import preference_loss, score_answers
from models.demo.writing.sampling import Answer, Sampling, answers, llama_with
from models.demo.writing.titles import all_paragraphs, draw_article_task
from models.demo.writing.vocabulary import EVALUATION_SEEDS

WEB, SFT, DPO = "lora_web", "lora_sft", "lora_dpo"
RATES = {WEB: 2e-3, SFT: 1e-3, DPO: 5e-5}
TOKENIZER, BANK, SIGHT = "tokenizer.json", "bank.json", "vision.safetensors"
SCREENSHOT_SHARE = 0.18
# Most pages, long pages, screenshots.
WEB_LENGTHS = (
    Length(tokens=320, batch=72),
    Length(tokens=480, batch=48),
    Length(tokens=640, batch=32),
)
ARTICLE_LENGTHS = (Length(tokens=384, batch=64),)
PREFERENCE_LENGTHS = (Length(tokens=544, batch=32),)
DRAFTING = Sampling(max_tokens=70, temperature=0.5, batch=1024)
JUDGED_TOKENS = 512
JUDGED_SEED = EVALUATION_SEEDS.start + 2 * 10**9  # others than those of models.demo.evaluate

Loss = Callable[[Batch], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """The model and everything a stage needs beside it."""

    model: DemoModel
    framer: Framer
    out: Path
    arguments: argparse.Namespace

    def adapter(self, name: str) -> Adapter:
        module = self.model.adapters[name]
        assert isinstance(module, Adapter)
        return module

    def hidden(self, batch: Batch, *adapters: str) -> Tensor:
        embedding = self.model.language.embedding
        half = embedding.dtype is torch.bfloat16
        with torch.autocast(embedding.device.type, torch.bfloat16, enabled=half):
            return self.model.hidden(batch.token_ids, adapters, batch.image)

    def restore(self, folder: str, *names: str) -> bool:
        """Parameters from an earlier stage's checkpoint, if there is one."""
        groups = [Group(modules=(self.adapter(name),), rate=0.0) for name in names]
        return load_checkpoint(self.out / folder, groups).steps > 0


def draft(shop: Workshop) -> None:
    llama = llama_with(shop.model.language)

    def write(prompts: Sequence[str]) -> list[str]:
        print(f"{len(prompts)} drafts", flush=True)
        return [answer.text for answer in answers(llama, shop.framer, prompts, DRAFTING)]

    paragraphs = all_paragraphs()
    bank = draft_bank(paragraphs, write, samples=shop.arguments.samples)
    write_bank(bank, shop.out / BANK)
    print(f"{sum(map(len, bank.values()))} good texts for {len(bank)} of {len(paragraphs)}")


def web(shop: Workshop) -> None:
    start = shop.arguments.begin
    if start:
        load_adapters(shop.model, (WEB,), start)
    share = SCREENSHOT_SHARE
    if (shop.out / SIGHT).is_file():
        load_vision(shop.model, shop.out / SIGHT)
    else:
        print(f"no {SIGHT} in {shop.out}: no screenshots")
        share = 0.0
    shop.model.vision.requires_grad_(False)
    shop.adapter(IMAGE).requires_grad_(False)

    def loss(batch: Batch) -> Tensor:
        return next_token_loss(shop.model, shop.hidden(batch, WEB), batch)

    lessons = WebLessons(
        tokenizer_file=shop.out / TOKENIZER, lengths=WEB_LENGTHS, screenshot_share=share
    )
    _train(shop, WEB, "web", lessons, loss)
    judge_web(shop)


def sft(shop: Workshop) -> None:
    def loss(batch: Batch) -> Tensor:
        return next_token_loss(shop.model, shop.hidden(batch, SFT), batch)

    lessons = ArticleLessons(
        tokenizer_file=shop.out / TOKENIZER,
        lengths=ARTICLE_LENGTHS,
        bank=read_bank(shop.out / BANK),
    )
    _train(shop, SFT, "sft", lessons, loss)
    judge_write(shop, SFT)


def dpo(shop: Workshop) -> None:
    if not shop.restore("sft", SFT):
        raise SystemExit(f"no sft checkpoint in {shop.out}: preferences need a policy to improve")
    shop.adapter(SFT).requires_grad_(False)

    def loss(batch: Batch) -> Tensor:
        with torch.no_grad():
            reference = score_answers(shop.model, shop.hidden(batch, SFT), batch)
        policy = score_answers(shop.model, shop.hidden(batch, SFT, DPO), batch)
        return preference_loss(policy, reference)

    lessons = PreferenceLessons(
        tokenizer_file=shop.out / TOKENIZER,
        lengths=PREFERENCE_LENGTHS,
        bank=read_bank(shop.out / BANK),
    )
    _train(shop, DPO, "dpo", lessons, loss)
    without, with_it = judge_write(shop, SFT), judge_write(shop, SFT, DPO)
    if with_it < without:
        print(
            f"lora_dpo is put back to nothing: {with_it:.2f} passed with it, {without:.2f} without"
        )
        with torch.no_grad():
            for layer in range(len(shop.adapter(DPO))):
                for _, up in shop.adapter(DPO).pairs(layer).values():
                    up.zero_()
    export_adapters(shop.model, (SFT, DPO), shop.out / "write.safetensors")


def judge(shop: Workshop) -> None:
    if shop.restore("web", WEB):
        judge_web(shop)
    if shop.restore("sft", SFT):
        judge_write(shop, SFT)
        if shop.restore("dpo", DPO):
            judge_write(shop, SFT, DPO)


def judge_web(shop: Workshop) -> None:
    examples = [draw_page(JUDGED_SEED + index) for index in range(shop.arguments.judged)]
    given = _answers(shop, [example.instruction for example in examples], WEB)
    judged = [
        judge_page(answer.text, example.wishes, stopped=answer.stopped)
        for answer, example in zip(given, examples, strict=True)
    ]
    _print_shares("web", [asdict(one) | {"passed": one.passed} for one in judged])
    print(given[0].text)


def judge_write(shop: Workshop, *adapters: str) -> float:
    """The share that passed."""
    tasks = [draw_article_task(JUDGED_SEED + index) for index in range(shop.arguments.judged)]
    given = _answers(shop, [task.prompt for task in tasks], *adapters)
    judged = [
        judge_article(answer.text, title=task.title, stopped=answer.stopped)
        for answer, task in zip(given, tasks, strict=True)
    ]
    _print_shares(" + ".join(adapters), [asdict(one) | {"passed": one.passed} for one in judged])
    print(given[0].text, flush=True)
    return sum(one.passed for one in judged) / len(judged)


def _answers(shop: Workshop, prompts: Sequence[str], *adapters: str) -> list[Answer]:
    """Greedy: what the sampling's chance would add is the evaluation's to measure."""
    with torch.no_grad():
        llama = llama_with(shop.model.language, [shop.adapter(name) for name in adapters])
    return answers(llama, shop.framer, prompts, Sampling(max_tokens=JUDGED_TOKENS))


def _print_shares(label: str, rows: Sequence[dict[str, bool]]) -> None:
    shares = (f"{name} {sum(row[name] for row in rows) / len(rows):.2f}" for name in rows[0])
    print(f"{label}, {len(rows)} unseen: {', '.join(shares)}", flush=True)


def _train(shop: Workshop, name: str, folder: str, lessons: AnyLessons, loss: Loss) -> None:
    """What has been learnt so far is exported beside every checkpoint, but for a dpo that is not
    yet judged.
    """
    arguments = shop.arguments
    groups = [Group(modules=(shop.adapter(name),), rate=RATES[name] * arguments.rate)]
    before = load_checkpoint(shop.out / folder, groups)
    lessons = replace(
        lessons,
        first_seed=arguments.first_seed + 2 * before.samples,  # more seeds are drawn than used
        lengths=tuple(
            replace(one, batch=max(2, one.batch // arguments.batch_divisor))
            for one in lessons.lengths
        ),
    )
    plan = Plan(
        total_seconds=arguments.seconds,
        stop_seconds=arguments.stop or arguments.seconds,
        batches_per_step=1,
        log_every=arguments.log_every,
    )
    data = load_lessons(lessons, num_workers=arguments.workers)

    def keep() -> None:
        if name != DPO:
            file = "web.safetensors" if name == WEB else "write.safetensors"
            export_adapters(shop.model, (name,), shop.out / file)

    done = run(plan, groups, data, loss, checkpoint=shop.out / folder, keep=keep)
    print(f"{folder}: {done}", flush=True)


STAGES = {"draft": draft, "web": web, "sft": sft, "dpo": dpo, "judge": judge}


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the demo model's adapters.")
    parser.add_argument("stages", nargs="+", choices=STAGES, help="in this order")
    parser.add_argument("--gguf", type=Path, required=True, help="SmolLM2-135M-Instruct as GGUF")
    parser.add_argument("--out", type=Path, required=True, help="checkpoints and results")
    parser.add_argument("--seconds", type=float, default=120, help="each adapter's whole budget")
    parser.add_argument("--stop", type=float, help="stop after so many of these seconds")
    parser.add_argument("--begin", type=Path, help="web: begin with this web.safetensors")
    parser.add_argument("--samples", type=int, default=5, help="drafts of each paragraph")
    parser.add_argument("--judged", type=int, default=128, help="unseen instructions and titles")
    parser.add_argument("--workers", type=int, default=8, help="processes that draw")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--batch-divisor", type=int, default=1, help="smaller batches, for a trial")
    parser.add_argument("--log-every", type=int, default=25)
    parser.add_argument("--rate", type=float, default=1.0, help="scales every learning rate")
    parser.add_argument(
        "--dtype",
        choices=("bfloat16", "float32"),
        help="of the frozen weights and the products; default: bfloat16 on a GPU, else float32",
    )
    parser.add_argument("--compile", action="store_true", help="worth it from some minutes on")
    arguments = parser.parse_args()

    torch.manual_seed(20261122)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    default = "bfloat16" if device.type == "cuda" else "float32"
    dtype: torch.dtype = getattr(torch, arguments.dtype or default)
    torch.set_float32_matmul_precision("high")
    arguments.out.mkdir(parents=True, exist_ok=True)
    if not (arguments.out / TOKENIZER).is_file():
        LlamaGguf(arguments.gguf).write_tokenizer(arguments.out / TOKENIZER)
    language = load_language(arguments.gguf, device=device, dtype=dtype)
    model = DemoModel(language, RANKS).to(device)
    if arguments.compile:
        model.compile_layers()
    shop = Workshop(
        model=model,
        framer=Framer(arguments.out / TOKENIZER),
        out=arguments.out,
        arguments=arguments,
    )
    for stage in arguments.stages:
        STAGES[stage](shop)


if __name__ == "__main__":
    main()
