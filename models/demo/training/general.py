"""Questions about no picture, answered by SmolLM2 itself: a picture must not spoil the rest.

Some training conversations ask one of these while a picture is there, and the answer to learn is
the one the language model gives without it.
"""

import torch

from models.demo.training.batches import Framer
from models.demo.training.model import DemoModel

MAX_TOKENS = 40

QUESTIONS = (
    "What is the capital of France?",
    "What is the capital of Japan?",
    "What is the capital of Italy?",
    "What is two plus two?",
    "What is ten minus three?",
    "How many days are in a week?",
    "How many months are in a year?",
    "How many legs does a spider have?",
    "What colour is grass?",
    "What do bees make?",
    "What is the largest planet of the solar system?",
    "Which planet is closest to the sun?",
    "Who wrote Romeo and Juliet?",
    "Who painted the Mona Lisa?",
    "What is water made of?",
    "At what temperature does water boil?",
    "What is the opposite of hot?",
    "What is the opposite of small?",
    "Name a fruit that is yellow.",
    "Name an animal that can fly.",
    "Name three primary colours.",
    "What language is spoken in Brazil?",
    "What is the currency of the United States?",
    "What is a synonym for happy?",
    "Say hello in Spanish.",
    "Say thank you in French.",
    "What is the past tense of go?",
    "What is the plural of child?",
    "Which ocean is the largest?",
    "Which is the longest river in Africa?",
    "What gas do plants take in?",
    "What do we call a baby dog?",
    "What do we call a baby cat?",
    "How many sides does a hexagon have?",
    "How many continents are there?",
    "What is the first month of the year?",
    "What is the boiling point of water in Celsius?",
    "Who was the first person on the Moon?",
    "Hello!",
    "Thank you.",
    "Who are you?",
    "What is your name?",
    "What can you do?",
    "Tell me a fact about whales.",
    "Tell me a fact about the Moon.",
    "Write one sentence about the sea.",
    "Write one sentence about winter.",
    "What is a computer?",
    "What is a library?",
    "What is gravity?",
)


@torch.inference_mode()
def answer_general_questions(model: DemoModel, framer: Framer) -> tuple[tuple[str, str], ...]:
    """Greedy answers of at most MAX_TOKENS tokens; those that do not end by themselves are left
    out. Recomputes the whole prefix for every token: a few seconds on a GPU.
    """
    device = model.language.embedding.device
    prompts = [framer.chat([(question, "")]).ids for question in QUESTIONS]
    # Without the empty answer's own end of turn and line break.
    opened = [list(ids[:-2]) for ids in prompts]
    width = max(map(len, opened)) + MAX_TOKENS
    rows = torch.full((len(opened), width), framer.pad, device=device)
    lengths = torch.tensor([len(ids) for ids in opened], device=device)
    for row, ids in zip(rows, opened, strict=True):
        row[: len(ids)] = torch.tensor(ids, device=device)
    index = torch.arange(len(opened), device=device)
    for step in range(MAX_TOKENS):
        last = model.hidden(rows)[index, lengths + step - 1]
        rows[index, lengths + step] = model.logits(last).argmax(-1)
    answered = []
    for question, row, length in zip(QUESTIONS, rows.tolist(), lengths.tolist(), strict=True):
        answer = row[length:]
        if framer.end in answer:
            answered.append((question, framer.decode(answer[: answer.index(framer.end)])))
    return tuple(answered)
