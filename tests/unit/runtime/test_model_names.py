"""Names in a root: which there may be, and that none leads out of it."""

import os
import threading
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ixc_runtime.errors import (
    CheckpointInvalid,
    CheckpointMissing,
    FieldInvalid,
    JobFault,
    ModelIdTaken,
)
from ixc_runtime.models_root import ModelsRoot, NamedFolders, is_model_id
from tests.fakes.interrupted_job import (
    Quiet,
    job,
    make,
)
from tests.fakes.synthetic_job import run_synthetic
from tests.fakes.tiny_models_root import tree

TRICKS = (
    *("..", ".", "...", "../cats", "cats/..", "cats/../..", "/cats", "cats/", "//", "\\"),
    *("", " ", " cats", "cats ", "cats\n", "\ncats", "cats\0", "\0", "ca\0ts", "cats\0.json"),
    *(".cats", "cats.", "-cats", "cats-", "_cats", "cats_", "a..b", ".ixc-jobs", "ixc-manifest."),
    *("Cats", "CATS", "cäts", "ｃats", "cаts", "ca\u200bts", "ca\u0301ts", "\u202ecats", "ı", "ſ"),
    *("con", "nul", "aux", "prn", "com1", "lpt9", "con.txt", "nul.", "aux.bin", "..\\cats"),
    *("~", "~root", "$HOME", "%2e%2e", "%2e%2e%2fcats", "..%2fcats", "cats:stream", "c:", "c:cats"),
    *("*", "?", "cats*", "[a]", "cats|ls", "cats;ls", "`ls`", "$(ls)", "cats&", "<cats>", "'cats'"),
    *("x" * 64, "x" * 255, "x" * 4096, "..﹒", "．．", "‥", "…", "∕etc", "／etc", "cats／..", "ﬀ"),
    *("models/cats", "adapters/cats", "file:///etc", "http://x", "@", "cats@1", "cats=1", "cats,1"),
    *("cats²", "①", "cats\ud800", "\udcff", "١٢٣", "cats٣", "𝒄ats", "🐈", "cats🐈", "\ue000"),
)
HOSTILE = sorted(
    {
        *TRICKS,
        *(
            f"{word}{trick}"
            for word in ("cats", "..")
            for trick in ("/", "\\", "\0", "\n", "\u2215")
        ),
        *(f"{'../' * depth}etc/passwd" for depth in range(1, 30)),
        *(f"cats{chr(code)}" for code in (*range(33), 127, 0x85, 0xA0, 0x2028, 0x2029, 0xFEFF)),
        *(f"{chr(code)}cats" for code in range(0xFF01, 0xFF20)),
    }
)


def test_there_are_enough_hostile_names() -> None:
    assert len(HOSTILE) >= 200


@pytest.mark.parametrize("name", HOSTILE, ids=lambda name: ascii(name)[:40])
def test_a_hostile_name(tmp_path: Path, name: str) -> None:
    """Is refused as the source, as an adapter and as the output, and no file is looked at."""
    root = tmp_path / "outer" / "models"
    root.mkdir(parents=True)
    (tmp_path / "outer" / "cats").mkdir()
    before = tree(tmp_path)
    models = ModelsRoot(root)
    with pytest.raises(CheckpointMissing):
        models.folder(name)
    with pytest.raises(CheckpointMissing):
        NamedFolders(root, "adapters").folder(name)
    with pytest.raises(FieldInvalid):
        models.check_output(name, overwrite=True)
    assert tree(tmp_path) == before
    assert [path.name for path in root.iterdir()] == []


@given(st.text(max_size=80))
def test_every_id_is_a_plain_file_name(text: str) -> None:
    """ASCII, the same under every normalisation and in lower case, one path component."""
    if is_model_id(text):
        assert text.isascii() and text == text.lower() and 1 <= len(text) <= 63
        assert Path(text).name == text and os.path.normpath(text) == text
        assert all(unicodedata.normalize(form, text) == text for form in ("NFC", "NFKC", "NFD"))


@given(st.from_regex(r"[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?", fullmatch=True))
def test_plain_words_are_ids(text: str) -> None:
    """Unless a device on some system is called so."""
    devices = {"con", "prn", "aux", "nul", *(f"{d}{n}" for d in ("com", "lpt") for n in range(10))}
    assert is_model_id(text) == (text not in devices)


@pytest.mark.parametrize("target", ["inside", "outside", "nowhere"])
def test_a_link_in_the_root(tmp_path: Path, target: str) -> None:
    """Is no model, wherever it leads, and is not replaced."""
    root = tmp_path / "models"
    make(root)
    outside = tmp_path / "secret"
    outside.mkdir()
    (outside / "config.json").write_text("{}")
    leads = {"inside": root / "source", "outside": outside, "nowhere": tmp_path / "none"}
    (root / "link").symlink_to(leads[target])
    models = ModelsRoot(root)
    assert [model.model_id for model in models.models()] == ["source"]
    with pytest.raises(CheckpointMissing):
        models.folder("link")
    with pytest.raises(ModelIdTaken):
        models.check_output("link", overwrite=True)


def test_a_link_inside_a_model(tmp_path: Path) -> None:
    """Makes it unusable: what it leads to is none of the root's."""
    root = make(tmp_path / "models")
    (tmp_path / "secret").write_text("{}")
    (root / "source" / "weights.bin").symlink_to(tmp_path / "secret")
    with pytest.raises(CheckpointMissing):
        ModelsRoot(root).folder("source")


def test_links_swapped_in_while_a_job_writes(tmp_path: Path) -> None:
    """Everything goes where the folders were, nothing to where the links lead."""
    root, outside = make(tmp_path / "models"), tmp_path / "outside"
    outside.mkdir()
    stop = threading.Event()

    def swap() -> None:
        jobs = root / ".ixc-jobs"
        while not stop.is_set():
            for folder in (jobs, jobs / "job-1", jobs / "job-1" / "model"):
                aside = folder.with_name(f"{folder.name}-aside")
                try:
                    folder.rename(aside)
                    folder.symlink_to(outside)
                    folder.unlink()
                    aside.rename(folder)
                except OSError:
                    continue

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for number in range(100):
            try:
                run_synthetic(job(root, output=f"m{number}"), Quiet())
            except (JobFault, CheckpointInvalid):
                continue
    finally:
        stop.set()
        thread.join()
    assert list(outside.iterdir()) == []
