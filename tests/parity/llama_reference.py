"""SmolLM2 as transformers runs it, from the same GGUF file: the outside judge of the demo model.

Two ways to ask it. `generate` is what a user would call, and slow. `judge` shows it a whole answer
at once and asks, for every position, which token it would have chosen after the ones before: where
that is always the answer's own, the answer is the one that greedy decoding gives.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM
from transformers.utils.logging import disable_progress_bar


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The token that wins at a position, the one that comes second, and by how much in logits."""

    token_id: int
    runner_up: int
    margin: float


class LlamaReference:
    def __init__(self, gguf: Path) -> None:
        disable_progress_bar()
        self.model = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, dtype=torch.float32, local_files_only=True
        ).eval()
        # Goes on past the end of a turn, so that every prompt gives as many ids as are asked for.
        self.model.generation_config.eos_token_id = None

    def generate(self, prompt: tuple[int, ...], num_tokens: int) -> list[int]:
        """Greedy, with the KV cache, one token after the other."""
        ids = torch.tensor([prompt])
        answer = self.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=num_tokens,
            do_sample=False,
            pad_token_id=0,
        )
        return answer[0, len(prompt) :].tolist()

    def judge(self, prompt: tuple[int, ...], answer: list[int]) -> list[Choice]:
        """What greedy decoding chooses at each position of the answer, given all before it."""
        ids = torch.tensor([[*prompt, *answer]])
        with torch.inference_mode():
            logits = self.model(ids, logits_to_keep=len(answer) + 1).logits[0, :-1]
        values, choices = logits.topk(2)
        return [
            Choice(token_id=best, runner_up=second, margin=margin)
            for (best, second), margin in zip(
                choices.tolist(), (values[:, 0] - values[:, 1]).tolist(), strict=True
            )
        ]
