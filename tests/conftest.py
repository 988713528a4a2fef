"""What tests of every folder may ask for. Everything dear is made once per session."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest


def local_gguf() -> Path | None:
    """SmolLM2's GGUF file where the machine already has it: IXC_TEST_GGUF."""
    path = os.environ.get("IXC_TEST_GGUF")
    return Path(path) if path else None


@pytest.fixture(scope="session")
def demo_model() -> Path:
    """The demo model's folder in the user's cache, built if need be. Mark such tests `demo`."""
    from ixc_runtime.checkpoint.demo_model import ensure_demo_model

    return ensure_demo_model(gguf=local_gguf(), progress=print)


@pytest.fixture(scope="session")
def demo_gguf() -> Iterator[Path]:
    """The file that the demo model is made of, for those who compare with it."""
    if path := local_gguf():
        yield path
        return
    from ixc_runtime.checkpoint.demo_model import downloaded_gguf

    with downloaded_gguf(print) as path:
        yield path
