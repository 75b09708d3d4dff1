"""What Linux says of the memory of a process."""

from __future__ import annotations

import re
from pathlib import Path

_KIB_PER_MIB = 1_024


def mib(pid: int, file: str, name: str) -> float:
    """A line of a file of its directory under /proc, in MiB; 0 where there is no such line."""
    text = Path(f"/proc/{pid}/{file}").read_text(encoding="ascii")
    found = re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) / _KIB_PER_MIB if found else 0.0
