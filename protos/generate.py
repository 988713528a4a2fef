"""Write the contract's Python stubs into `protos/gen/python`, or check that they are current.

    python protos/generate.py            write what has changed
    python protos/generate.py --check    exit 1 and show a diff where they are not current

Knows protoc and its plugins, nothing of what the contract says. The versions that run are those
pinned in pyproject.toml; they stamp the stubs, and the stamps are the floor of a user's
environment. google.rpc is not generated: googleapis-common-protos brings it, and grpcio-status
requires that.
"""

import argparse
import difflib
import os
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

PROTOS = Path(__file__).resolve().parent
STUBS = PROTOS / "gen" / "python"
PACKAGE = Path("ixc") / "v1"

# What protoc does not write: `ixc` is a typed package, not a namespace.
MARKERS = {
    Path("ixc") / "__init__.py": '"""The contract. Messages and stubs are in `ixc.v1`."""\n',
    Path("ixc") / "py.typed": "",
    PACKAGE / "__init__.py": '"""Version 1 of the contract; written by protos/generate.py."""\n',
}


def main() -> int:
    parser = argparse.ArgumentParser(description="Generate the Python stubs of the contract.")
    parser.add_argument("--check", action="store_true", help="compare only, write nothing")
    check = parser.parse_args().check
    fresh = generate()
    if check:
        return report_drift(fresh, read_tree(STUBS))
    write_tree(fresh, STUBS)
    return 0


def generate() -> dict[Path, str]:
    """The stubs of every .proto file of ours, by their path under `protos/gen/python`."""
    sources = sorted(str(path.relative_to(PROTOS)) for path in (PROTOS / PACKAGE).glob("*.proto"))
    services = [path for path in sources if path.endswith("_service.proto")]
    put_plugins_on_path()
    with tempfile.TemporaryDirectory(prefix="ixc-stubs-") as folder:
        run_protoc(sources, f"--python_out={folder}", f"--mypy_out=quiet:{folder}")
        run_protoc(services, f"--grpc_python_out={folder}", f"--mypy_grpc_out=quiet:{folder}")
        return read_tree(Path(folder)) | MARKERS


def run_protoc(sources: list[str], *outputs: str) -> None:
    well_known = files("grpc_tools") / "_proto"
    includes = [f"-I{PROTOS}", f"-I{PROTOS / 'third_party'}", f"-I{well_known}"]
    status = protoc.main(["protoc", *includes, *outputs, *sources])
    if status != 0:
        raise SystemExit(f"protoc failed with status {status}; its message is above")


def put_plugins_on_path() -> None:
    """The plugins are installed beside this interpreter, but protoc looks for them on PATH."""
    beside = str(Path(sys.executable).parent)
    os.environ["PATH"] = beside + os.pathsep + os.environ.get("PATH", "")


def read_tree(root: Path) -> dict[Path, str]:
    return {
        path.relative_to(root): path.read_text()
        for path in sorted((root / "ixc").rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


def write_tree(fresh: dict[Path, str], root: Path) -> None:
    """Make `root` equal to `fresh`, touching only what differs."""
    present = read_tree(root)
    for path in sorted(present.keys() - fresh.keys()):
        (root / path).unlink()
        print(f"removed {path}")
    for path, text in sorted(fresh.items()):
        if present.get(path) != text:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)
            print(f"wrote {path}")


def report_drift(fresh: dict[Path, str], committed: dict[Path, str]) -> int:
    """Print how `committed` differs from `fresh`; 0 if it does not."""
    paths = sorted(fresh.keys() | committed.keys())
    drifted = [path for path in paths if fresh.get(path) != committed.get(path)]
    for path in drifted:
        sys.stdout.writelines(
            difflib.unified_diff(
                committed.get(path, "").splitlines(keepends=True),
                fresh.get(path, "").splitlines(keepends=True),
                f"committed/{path}" if path in committed else "absent",
                f"generated/{path}" if path in fresh else "absent",
            )
        )
    if drifted:
        print(f"{len(drifted)} stub files are not current: run python protos/generate.py")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
