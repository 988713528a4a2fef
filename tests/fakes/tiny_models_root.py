"""A models root with one tiny model in it that jobs can read: weights, tower, tasks, tokenizer."""

from pathlib import Path
from typing import Any

from tests.fakes.tiny_checkpoint import write_tiny_checkpoint
from tests.fakes.tiny_tokenizer import CHATML_ROLES, write_tokenizer_json

SOURCE = "tiny"
# Random weights say nothing sensible, so rounding them costs more than it would a real model.
LOOSE = {"max_perplexity_ratio": 100.0, "max_mean_kl": 10.0, "min_top1_agreement": 0.0}


def write_models_root(folder: Path, **sizes: Any) -> Path:
    """`folder` with the model in it; `sizes` are those of `write_tiny_checkpoint`."""
    wanted = {"vocab": 700, "intermediate": 64, "settings": {"roles": CHATML_ROLES}, **sizes}
    write_tokenizer_json(write_tiny_checkpoint(folder / SOURCE, **wanted))
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    """Every file under a folder by its path in it, hidden ones too."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
