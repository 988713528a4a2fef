"""How much memory of this machine is free."""

import os
from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def free_host_bytes() -> int:
    """Memory that can be taken without anybody else having to give some up: of the machine, and of
    the control group that this process is confined to.
    """
    in_group = _free_of_group(_CGROUP)
    return _free_of_machine() if in_group is None else min(_free_of_machine(), in_group)


def _free_of_machine() -> int:
    try:
        for line in _MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _free_of_group(group: Path) -> int | None:
    """None where there is no such group, or it sets no bound."""
    try:
        bound = (group / "memory.max").read_text().strip()
        used = int((group / "memory.current").read_text())
        stat = (group / "memory.stat").read_text()
    except OSError:
        return None
    if bound == "max":
        return None
    # Pages of files are counted as used, and given up when somebody needs them.
    cached = next(
        (int(line.split()[1]) for line in stat.splitlines() if line.startswith("inactive_file ")), 0
    )
    return max(0, int(bound) - used + cached)
