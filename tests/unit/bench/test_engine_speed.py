"""The engine's benchmark on a model of a few kilobytes: that it measures, not what."""

import json
from pathlib import Path

from tests.bench.engine_speed import main
from tests.bench.full_size_checkpoint import Sizes, write_checkpoint

SIZES = Sizes(
    layers=1,
    hidden=128,
    intermediate=256,
    heads=2,
    kv_heads=1,
    vocab=1200,
    rank=8,
    tower_layers=1,
    tower_hidden=64,
)


def test_every_cell_has_its_row(tmp_path: Path) -> None:
    """Those that were measured a value, those that do not fit the reason."""
    model, output = tmp_path / "model", tmp_path / "engine.json"
    write_checkpoint(model, SIZES, device="cpu", threads=1)
    main(
        [
            str(model),
            *("--device", "cpu", "--only", "load,decode,prefill,picture,long"),
            *("--batches", "1,4", "--contexts", "32,4000", "--tokens", "6", "--repeats", "1"),
            *("--prompts", "64", "--many", "2,32", "--tiles", "1", "--long", "700"),
            *("--max-context", "2048", "--output", str(output)),
        ]
    )
    rows = {row["name"]: row for row in json.loads(output.read_text())["rows"]}
    measured = {
        "load weights fp32",
        "load ready fp32",
        "decode fp32 batch=1 context=32",
        "decode fp32 batch=4 context=32",
        "decode fp32 batch=1 context=700",
        "prefill fp32 tokens=64",
        "prefill fp32 prompts=2 tokens=32",
        "prefill fp32 tokens=700",
        "picture fp32 tiles=1 first token",
        "picture fp32 tiles=1 second question",
    }
    unfit = {"decode fp32 batch=1 context=4000", "decode fp32 batch=4 context=4000"}
    assert rows.keys() == measured | unfit
    assert all(rows[name]["value"] > 0 for name in measured)
    for name in unfit:
        assert rows[name]["value"] is None
        assert "at most 2048" in rows[name]["note"]
