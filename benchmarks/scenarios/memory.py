"""What a worker process keeps in memory, idle and under load."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path

from benchmarks.filling import Fill, fill
from benchmarks.programs import Programs, start_workers
from benchmarks.scenario import Sample, Scenario, Site, Variant
from benchmarks.sizes import Sizes
from benchmarks.stores import Store

_KIB_PER_MIB = 1_024


async def _measure(site: Site) -> Sample:
    async with Programs(site.directory) as programs:
        await start_workers(programs, site.store, 1, "--concurrency", "100", "--sleep", "0.05")
        await asyncio.sleep(site.sizes.idle_seconds)
        pid = programs.processes[0].pid
        idle, private = _mib(pid, "status", "VmRSS"), _mib(pid, "smaps_rollup", "Private_Dirty")
        await fill(site.store, Fill(site.sizes.drain))
        await programs.ran(site.sizes.drain)
        return Sample(
            {
                "idle MiB": idle,
                "idle MiB, its own": private,
                "most MiB under load": _mib(pid, "status", "VmHWM"),
            }
        )


def _mib(pid: int, file: str, name: str) -> float:
    """A line of what Linux says of a process."""
    text = Path(f"/proc/{pid}/{file}").read_text(encoding="ascii")
    found = re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) / _KIB_PER_MIB if found else 0.0


def _variants(_: Store, __: Sizes) -> Sequence[Variant]:
    return [Variant("one worker process, concurrency 100", _measure)]


MEMORY = Scenario("memory", "Memory of a worker process (resident set)", _variants)
