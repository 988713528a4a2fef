"""A private server: started, waited for, stopped, and its failures told."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import ixc_client
from ixc_client import PrivateServer

# Stands in for `ixc serve`: same arguments, same lifeline, and fakes for answers.
STAND_IN = """
import sys
sys.path[:0] = {path!r}
from ixc_client.testing import FakeServer
flags = dict(flag.lstrip("-").split("=", 1) for flag in sys.argv[2:] if "=" in flag)
print("loading", sys.argv[1], flags.get("max-batch"), "--no-prefix-cache" in sys.argv, flush=True)
if sys.argv[1] == "broken":
    sys.exit("config.json is missing")
with FakeServer(flags["listen"]):
    sys.stdin.read()
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    script = tmp_path / "stand_in.py"
    script.write_text(STAND_IN.format(path=sys.path))
    monkeypatch.setattr(PrivateServer, "command", (sys.executable, str(script)))
    yield


@pytest.mark.usefixtures("stand_in")
def test_launch_returns_a_client_of_a_ready_server() -> None:
    """And closing it stops the server and removes its folder."""
    with ixc_client.launch("model", max_batch=4, prefix_cache=False) as ixc:
        assert [str(a) for a in ixc.generate(["a", "b"])] == ["You said: a", "You said: b"]
        socket = Path(ixc.address.removeprefix("unix:"))
        assert socket.exists()
    assert not socket.parent.exists()


@pytest.mark.usefixtures("stand_in")
def test_settings_become_flags() -> None:
    """As `ixc serve` spells them."""
    with PrivateServer("model", max_batch=4, prefix_cache=False) as server:
        assert server.log == "loading model 4 True"


@pytest.mark.usefixtures("stand_in")
def test_a_server_that_ends_at_once_tells_why() -> None:
    """Its own words and its exit status, not a timeout."""
    with pytest.raises(ixc_client.LaunchFailed, match="exit status 1") as caught:
        ixc_client.launch("broken")
    assert "config.json is missing" in str(caught.value)
    assert "config.json is missing" in caught.value.log


def test_a_server_that_is_never_ready_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the time it was given."""
    forever = (sys.executable, "-c", "import sys; sys.stdin.read()")
    monkeypatch.setattr(PrivateServer, "command", forever)
    server = PrivateServer("model", start_timeout=0.2)
    with pytest.raises(ixc_client.LaunchFailed, match=r"not ready after 0\.2 s"):
        server.start()
    assert server._process is not None
    assert server._process.poll() is not None


def test_serve_without_the_server_extra_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The likeliest failure of all, on one line."""
    script = (
        f"import sys; sys.path[:0] = {sys.path!r}; import importlib.util as u; find = u.find_spec; "
        "u.find_spec = lambda name, *a: None if name == 'torch' else find(name, *a); "
        "from ixc_cli.main import main; sys.exit(main(['serve', *sys.argv[1:]]))"
    )
    monkeypatch.setattr(PrivateServer, "command", (sys.executable, "-c", script))
    with pytest.raises(ixc_client.LaunchFailed, match=r"pip install 'ixc\[server\]'"):
        ixc_client.launch("model")


@pytest.mark.usefixtures("stand_in")
def test_the_server_goes_with_the_process_that_started_it(tmp_path: Path) -> None:
    """Even if that process is killed and can do nothing about it."""
    parent = tmp_path / "parent.py"
    parent.write_text(
        f"import sys, os, signal; sys.path[:0] = {sys.path!r}\n"
        "import ixc_client, tempfile\n"
        f"tempfile.tempdir = {str(tmp_path)!r}\n"
        f"ixc_client.PrivateServer.command = {PrivateServer.command!r}\n"
        "server = ixc_client.PrivateServer('model').start()\n"
        "print(server._process.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    # The server holds the other end of this pipe as well: it ends when both are gone.
    done = subprocess.run(
        [sys.executable, parent], check=False, capture_output=True, text=True, timeout=60
    )
    pid = int(done.stdout)
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists():
            return
        subprocess.run(["sleep", "0.1"], check=True)
    pytest.fail(f"process {pid} is still there")
