"""What a worker process keeps in memory, idle and under load."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from benchmarks.filling import Fill, fill
from benchmarks.programs import Programs, start_workers
from benchmarks.resident import mib
from benchmarks.scenario import Sample, Scenario, Site, Variant
from benchmarks.sizes import Sizes
from benchmarks.stores import Store


async def _measure(site: Site) -> Sample:
    async with Programs(site.directory) as programs:
        await start_workers(programs, site.store, 1, "--concurrency", "100", "--sleep", "0.05")
        await asyncio.sleep(site.sizes.idle_seconds)
        pid = programs.processes[0].pid
        idle, private = mib(pid, "status", "VmRSS"), mib(pid, "smaps_rollup", "Private_Dirty")
        await fill(site.store, Fill(site.sizes.drain))
        await programs.ran(site.sizes.drain)
        return Sample(
            {
                "idle MiB": idle,
                "idle MiB, its own": private,
                "most MiB under load": mib(pid, "status", "VmHWM"),
            }
        )


def _variants(_: Store, __: Sizes) -> Sequence[Variant]:
    return [Variant("one worker process, concurrency 100", _measure)]


MEMORY = Scenario("memory", "Memory of a worker process (resident set)", _variants)
