"""What every fault test needs: a tiny model, made once."""

from pathlib import Path

import pytest

from tests.fakes.server_process import write_model


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("faults") / "tiny")
