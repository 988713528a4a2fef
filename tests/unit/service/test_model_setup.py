"""The model that a server starts with: its folder, and what it is called."""

from pathlib import Path

import pytest

from ixc_runtime.errors import CheckpointMissing
from ixc_service.model_setup import first_model, outside_models
from ixc_service.settings import Settings, SettingsError


def test_it_is_called_as_its_folder_is_or_as_it_is_told(tmp_path: Path) -> None:
    """By requests and by jobs alike."""
    settings = Settings(model=tmp_path)
    assert first_model(settings) == (tmp_path, tmp_path.name)
    named = Settings(model=tmp_path, model_name="demo")
    assert first_model(named) == (tmp_path, "demo")
    assert outside_models(named) == {"demo": tmp_path}
    assert outside_models(Settings()) == {}


def test_a_name_that_another_model_has(tmp_path: Path) -> None:
    """In the models root: a request would mean one of them and a job the other. The same folder
    under its own name is no other model.
    """
    model, root = tmp_path / "made-elsewhere", tmp_path / "models"
    model.mkdir()
    (root / "demo").mkdir(parents=True)
    (root / "demo" / "config.json").write_text("{}")
    with pytest.raises(SettingsError, match="models/demo, which the models root has"):
        first_model(Settings(model=model, model_name="demo", models_root=root))
    assert first_model(Settings(model=model, models_root=root))[1] == "made-elsewhere"
    assert first_model(Settings(model=root / "demo", models_root=root))[1] == "demo"


def test_a_folder_of_that_name_that_is_no_model(tmp_path: Path) -> None:
    """Is in nobody's way: in this repository `models` holds the demo model's source code."""
    model, root = tmp_path / "made-elsewhere", tmp_path / "models"
    model.mkdir()
    (root / "demo" / "drawing").mkdir(parents=True)
    settings = Settings(model=model, model_name="demo", models_root=root)
    assert first_model(settings) == (model, "demo")


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """Is told by its path, before anything is started."""
    with pytest.raises(CheckpointMissing, match=f"no such folder: {tmp_path}/nope"):
        first_model(Settings(model=tmp_path / "nope"))
    with pytest.raises(SettingsError, match="--model FOLDER"):
        first_model(Settings())
