"""Adapters that an engine is to begin with: those of a caller, and those of an engine before it."""

from pathlib import Path

import pytest

from ixc_runtime.engine_process.messages import AdapterSource, EngineConfig, Ready
from ixc_runtime.engine_process.process import build_engine
from ixc_runtime.errors import AdapterIdTaken
from tests.fakes.tiny_checkpoint import TinyModel, write_tiny_checkpoint
from tests.fakes.tiny_peft import TinyAdapter, write_tiny_adapter
from tests.fakes.tiny_tokenizer import write_tokenizer_model

MODEL = TinyModel(vocab=1000, tower=None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """model, cats."""
    write_tokenizer_model(write_tiny_checkpoint(tmp_path / "model", MODEL), vocab_size=1000)
    write_tiny_adapter(tmp_path / "cats", TinyAdapter(model=MODEL))
    return tmp_path


def started(folder: Path, *sources: AdapterSource) -> Ready:
    config = EngineConfig(model=str(folder / "model"), kv_bytes=1 << 22, adapters=sources)
    return build_engine(config)[1]


def cats(folder: Path, name: str, digest: str | None = None) -> AdapterSource:
    return AdapterSource(name=name, folder=str(folder / "cats"), digest=digest)


def test_an_adapter_whose_name_the_model_has_by_now(folder: Path) -> None:
    """Who asks for it is refused; an engine that comes back does without it, with all the rest."""
    with pytest.raises(AdapterIdTaken):
        started(folder, cats(folder, "web"))
    (adapter,) = started(folder, cats(folder, "cats")).info.user_adapters

    ready = started(
        folder, cats(folder, "web", adapter.digest), cats(folder, "cats", adapter.digest)
    )

    assert ready.info.user_adapters == (adapter,)
    assert ready.info.adapters == ("base", "web", "write", "cats")
