"""Direct preference optimisation: the good answer gains on the bad one, against a frozen policy.

    loss = -log sigmoid(beta ((p_good - r_good) - (p_bad - r_bad))) + anchor * nll_good

where p is the log probability of a whole answer under the policy that learns, r the same under the
reference: here the sft adapter, with and without the dpo adapter on top. The second term is not
of the original recipe: without it the good answer's own probability sinks too, only slower.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from models.demo.training.batches import Batch
from models.demo.training.model import DemoModel

BETA = 0.1
ANCHOR = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerScores:
    """Of each row: the sum over its learnt tokens, and how many they are."""

    log_probs: Tensor  # (B,)
    counts: Tensor  # (B,)


def score_answers(model: DemoModel, hidden: Tensor, batch: Batch) -> AnswerScores:
    """How likely each row's learnt tokens are; hidden (B, L, H)."""
    rows, length = batch.token_ids.shape
    logits = model.logits(hidden.flatten(0, 1)[batch.positions])
    losses = functional.cross_entropy(logits, batch.targets, reduction="none")
    owner = batch.positions // length
    zeros = torch.zeros(rows, device=losses.device)
    return AnswerScores(
        log_probs=zeros.index_add(0, owner, -losses),
        counts=zeros.index_add(0, owner, torch.ones_like(losses)),
    )


def preference_loss(policy: AnswerScores, reference: AnswerScores) -> Tensor:
    """Even rows hold the good answers, each followed by the bad one to the same request."""
    gain = policy.log_probs - reference.log_probs
    margin = gain[0::2] - gain[1::2]
    nll = -(policy.log_probs[0::2] / policy.counts[0::2]).mean()
    return -functional.logsigmoid(BETA * margin).mean() + ANCHOR * nll
