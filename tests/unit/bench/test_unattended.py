"""Long measurements on machines that may go away: what was found stays, and progress is told."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.bench import unattended, weights_speed
from tests.bench.full_size_checkpoint import sizes_of, write_checkpoint
from tests.bench.record import Measurement
from tests.bench.unattended import Figures, Pulse, earlier, in_own_process, keep

CUT_OFF = """
import json, os, signal
print(json.dumps({"time of a layer": [1.5]}), flush=True)
print(json.dumps({"time of a layer": [1.5, 2.5]})[:9], end="", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_part_that_is_cut_off() -> None:
    """What it had said by then is known; that it was not finished, too."""
    found: list[Figures] = []
    with pytest.raises(subprocess.CalledProcessError, match="SIGKILL"):
        found.extend(in_own_process([sys.executable, "-c", CUT_OFF]))
    assert found == [{"time of a layer": [1.5]}]


def kept(output: Path, name: str, settings: dict[str, str]) -> None:
    keep(output, [Measurement(name=name, unit="s", values=(1.0, 2.0))], [], settings)


def test_figures_of_an_earlier_run(tmp_path: Path) -> None:
    """Stay where the settings are the same, and are put aside where they are not."""
    output, settings = tmp_path / "speed.json", {"device": "cuda", "layers": "32"}
    assert earlier(output, settings) == {}
    kept(output, "merge, time", settings)
    assert earlier(output, settings) == {"merge": {"time": [1.0, 2.0]}}
    assert earlier(output, settings | {"layers": "2"}) == {}
    aside = json.loads((tmp_path / "speed.before.json").read_text())
    assert aside["measurements"][0]["name"] == "merge, time"
    assert not output.exists()


def test_a_disk_that_is_full_when_figures_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Leaves those that were there."""
    output = tmp_path / "speed.json"
    kept(output, "merge, time", {})

    def cut_off(path: Path, *_: object) -> None:
        path.write_text("{")
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(unattended, "write", cut_off)
    with pytest.raises(OSError, match="No space"):
        kept(output, "quantize, time", {})
    assert earlier(output, {}) == {"merge": {"time": [1.0, 2.0]}}


def test_a_pulse(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Beats by itself for as long as the work goes on, and says what that is at."""
    monkeypatch.setattr(unattended, "TELL_SECONDS", 0.001)
    beaten = threading.Event()

    def beside() -> str:
        beaten.set()
        return "2 GiB on disk"

    pulse = Pulse("quantize", beside=beside)
    with pulse.beating():
        pulse.at = "layer 7"
        beaten.clear()
        assert beaten.wait(10)
    assert "quantize, 0 s: layer 7 (2 GiB on disk)" in capsys.readouterr().err


def test_quantising_is_told_layer_by_layer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each layer's figures at once; the whole time only when all of it was done."""
    sizes = "--layers 2 --hidden 256 --intermediate 256 --heads 2 --kv-heads 1 --vocab 600"
    sizes += " --rank 4 --tower-layers 1 --tower-hidden 64 --texts 2 --text-tokens 16 --pictures 0"
    args = weights_speed.arguments().parse_args(
        [*sizes.split(), "--device", "cpu", "--folder", str(tmp_path)]
    )
    write_checkpoint(tmp_path / "source", sizes_of(args), device="cpu", threads=1)
    weights_speed.quantizing(args, Pulse("quantize", beside=lambda: ""))
    *partial, whole = map(json.loads, capsys.readouterr().out.splitlines())
    assert [len(each["time of a layer"]) for each in partial] == [1, 2]
    assert all("time" not in each and each["time so far"] for each in partial)
    assert len(whole["time"]) == 1 and len(whole["time of a layer"]) == 2
    assert "time so far" not in whole
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]
