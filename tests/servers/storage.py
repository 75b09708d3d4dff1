"""Where the files of tests are: in memory, where that is possible.

A commit waits until its data is on the disk, and so does every change of a table. In memory there is nothing to wait
for. A server that is killed finds there what it has written, as on a disk: only the machine must not lose its power.
"""

from __future__ import annotations

import os
from pathlib import Path

MEMORY = Path("/dev/shm")
ENOUGH_BYTES = 6 * 2**30
PROFILES = ("usr.sbin.mysqld", "usr.sbin.mariadbd")


def in_memory() -> Path | None:
    """A file system in memory with room for the servers, whose programs may use it; None where there is none."""
    if not os.access(MEMORY, os.W_OK) or _confined():
        return None
    room = os.statvfs(MEMORY)
    executable = not room.f_flag & os.ST_NOEXEC  # a test installs a package and runs it
    return MEMORY if executable and min(room.f_bavail * room.f_frsize, _free_memory()) >= ENOUGH_BYTES else None


def _free_memory() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


def _confined() -> bool:
    """AppArmor lets the servers of some distributions use no more than /tmp."""
    files = [Path("/etc/apparmor.d") / name for name in PROFILES]
    return any("{" in file.read_text(errors="replace") for file in files if file.exists())
