"""``python -m benchmarks.bare URL BATCH one|two``: drain with a bare loop, with so many commits per batch.

It says "ready" and begins when it reads a line.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from sqlalchemy import make_url

from benchmarks.bare.innodb import InnoDBLoop
from benchmarks.bare.loop import Loop
from benchmarks.bare.sqlite import SQLiteLoop
from benchmarks.job_counters import VARIABLE, Counters

try:
    import uvloop
except ImportError:
    new_loop = asyncio.new_event_loop
else:
    new_loop = uvloop.new_event_loop


def main(url: str, batch: int, commits: str) -> None:
    kind: type[InnoDBLoop | SQLiteLoop] = SQLiteLoop if make_url(url).get_backend_name() == "sqlite" else InnoDBLoop
    loop: Loop = kind(url, Counters(Path(os.environ[VARIABLE])), batch=batch, joined=commits == "one")
    print("ready", flush=True)
    sys.stdin.readline()
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(loop.run())


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
