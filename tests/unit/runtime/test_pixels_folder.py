"""Folders for pixels: gone with their owner, whether it could say goodbye or not."""

import subprocess
import sys
from pathlib import Path

from ixc_runtime.media.pixels_folder import PixelsFolder

_OWNER = """
import sys
from pathlib import Path
from ixc_runtime.media.pixels_folder import PixelsFolder
print(PixelsFolder.create(Path(sys.argv[1])).path, flush=True)
sys.stdin.read()
"""


def owner_process(parent: Path) -> tuple[subprocess.Popen[str], Path]:
    process = subprocess.Popen(
        [sys.executable, "-c", _OWNER, str(parent)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_a_folder_is_private_and_removed(tmp_path: Path) -> None:
    """Nobody else of this machine reads what people show."""
    folder = PixelsFolder.create(tmp_path)
    (folder.path / "pixels").write_bytes(b"x")
    assert folder.path.stat().st_mode & 0o777 == 0o700
    folder.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_killed_owners_folder_goes_with_the_next_start(tmp_path: Path) -> None:
    """A kill -9 leaves the pixels; the next server does not."""
    process, left = owner_process(tmp_path)
    (left / "pixels").write_bytes(b"x")
    process.kill()
    process.communicate()
    assert left.exists()
    folder = PixelsFolder.create(tmp_path)
    assert list(tmp_path.iterdir()) == [folder.path]
    folder.remove()


def test_a_living_owners_folder_stays(tmp_path: Path) -> None:
    """Two servers on one machine do not meet."""
    process, living = owner_process(tmp_path)
    folder = PixelsFolder.create(tmp_path)
    assert {*tmp_path.iterdir()} == {living, folder.path}
    folder.remove()
    process.communicate()


def test_what_is_not_ours_stays(tmp_path: Path) -> None:
    """Other names, and links that only bear the name."""
    other = tmp_path / "else"
    other.mkdir()
    (tmp_path / "ixc-pixels-link").symlink_to(other)
    PixelsFolder.create(tmp_path).remove()
    assert other.exists()
    assert (tmp_path / "ixc-pixels-link").is_symlink()
