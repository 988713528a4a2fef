"""The README's picture of the engine's speed, drawn from invented figures."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.bench.plot import LABELS, PEERS, WIDTH, draw, groups, main

NAMES = tuple(LABELS)
SVG = "{http://www.w3.org/2000/svg}"


def row(name: str, value: float | None, floor: float | None) -> dict[str, object]:
    return {"name": name, "value": value, "unit": "tokens/s", "floor": floor}


ROWS = [
    row(NAMES[0], 250.0, 290.0),
    row(NAMES[1], 6500.0, 8000.0),
    row(NAMES[2], None, None),  # did not fit
    row(NAMES[4], 60_000.0, 50_000.0),  # better than possible: a mistake, drawn as all of it
    row("picture bf16 tiles=25 first token", 400.0, 300.0),
]


def test_measured_cells_stand_beside_their_peers() -> None:
    """Ours first, then whoever has a figure, each as a share of our cell's best possible."""
    found = groups(ROWS)
    assert list(found) == [NAMES[0], NAMES[1], NAMES[4]]
    ours, vllm, torch = found[NAMES[0]]
    assert (ours.value, ours.share) == (250.0, pytest.approx(250 / 290))
    assert vllm.value == PEERS["vLLM 0.25.0"][NAMES[0]]
    assert torch.share == pytest.approx(173 / 290)
    assert len(found[NAMES[4]]) == 2


def test_the_drawing_is_an_svg_within_its_bounds() -> None:
    """A bar for every figure, none beyond the edge, and colours for dark pages."""
    root = ElementTree.fromstring(draw(ROWS))
    bars = [each for each in root.iter(f"{SVG}rect") if each.get("height") == "14"]
    assert len(bars) == 3 + 3 + 2
    for bar in bars:
        assert 0 < float(bar.get("width", 0)) <= WIDTH - float(bar.get("x", 0))
    assert "prefers-color-scheme: dark" in (root.findtext(f"{SVG}style") or "")
    texts = [each.text for each in root.iter(f"{SVG}text")]
    assert {"250", "208", "173", "vLLM 0.25.0"} <= set(texts)


def test_results_without_such_cells_are_refused() -> None:
    """Rather than an empty picture."""
    with pytest.raises(ValueError, match="none of the cells"):
        draw([])


def test_the_command_writes_the_file(tmp_path: Path) -> None:
    """From files of results, each with some of the cells."""
    files, output = [tmp_path / "decode.json", tmp_path / "prefill.json"], tmp_path / "engine.svg"
    for path, rows in zip(files, (ROWS[:2], ROWS[2:]), strict=True):
        path.write_text(json.dumps({"rows": rows}))
    main(["--results", *map(str, files), "--output", str(output)])
    assert output.read_text(encoding="utf-8") == draw(ROWS)
