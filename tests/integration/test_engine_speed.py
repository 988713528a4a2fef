"""The engine's benchmark on a tiny model and a CPU: every kind of cell, with its own arithmetic."""

import json
from pathlib import Path

import pytest

from tests.bench import engine_speed
from tests.fakes.server_process import write_model


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, object]]:
    folder = tmp_path_factory.mktemp("bench")
    engine_speed.main(
        [
            str(write_model(folder / "model", max_positions=512)),
            *("--device=cpu", "--only=decode,prefill,picture,long,grpc", "--repeats=2"),
            *("--batches=1,3,9", "--contexts=20,450", "--prompts=16,70", "--many=3,24"),
            *("--tiles=1,25", "--long=300", "--max-context=512", "--tokens=12", "--streams=3"),
            f"--output={folder / 'speed.json'}",
        ]
    )
    document = json.loads((folder / "speed.json").read_text())
    assert {"command", "machine", "versions", "settings", "ceilings"} <= document.keys()
    return {row["name"]: row for row in document["rows"]}


def test_every_cell_has_a_figure(rows: dict[str, dict[str, object]]) -> None:
    """Rates and times, and how far the repeats lie apart."""
    names = {
        *(f"decode fp32 batch={batch} context=20" for batch in (1, 3, 9)),
        *(f"decode fp32 batch={batch} context=450" for batch in (1, 3, 9)),
        *(f"prefill fp32 tokens={tokens}" for tokens in (16, 70, 300)),
        "prefill fp32 prompts=3 tokens=24",
        *(f"picture fp32 tiles=1 {what}" for what in ("first token", "second question")),
        *(f"picture fp32 tiles=25 {what}" for what in ("first token", "second question")),
        "decode fp32 batch=1 context=300",
        "grpc streams=3 context=20",
    }
    assert rows.keys() == names
    for row in rows.values():
        assert isinstance(row["value"], float) and row["value"] > 0
        assert isinstance(row["spread"], float)


def test_through_grpc_beside_the_engine(rows: dict[str, dict[str, object]]) -> None:
    """The streams' share is of the engine's own figure for as many."""
    streamed, of_engine = (
        rows[name] for name in ("grpc streams=3 context=20", "decode fp32 batch=3 context=20")
    )
    assert streamed["floor"] == of_engine["value"]
    assert streamed["ratio"] == streamed["value"] / of_engine["value"]  # type: ignore[operator]


def test_cells_that_do_not_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They say what is too large and how much room there is."""
    engine_speed.main(
        [
            str(write_model(tmp_path / "model", max_positions=512)),
            *("--device=cpu", "--only=decode,prefill,picture", "--repeats=1", "--tokens=2"),
            *("--batches=1", "--contexts=600", "--prompts=513", "--many=1,8", "--tiles=25"),
            *("--max-context=64", f"--output={tmp_path / 'speed.json'}"),
        ]
    )
    rows = json.loads((tmp_path / "speed.json").read_text())["rows"]
    notes = {row["name"]: row["note"] for row in rows if row["value"] is None}
    assert notes.keys() == {
        "decode fp32 batch=1 context=600",
        "prefill fp32 tokens=513",
        "picture fp32 tiles=25 first token",
    }
    assert all(note.startswith("does not fit: ") for note in notes.values())
    assert "at most 64" in capsys.readouterr().out
