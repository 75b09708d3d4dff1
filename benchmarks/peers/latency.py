"""From the return of a dispatch to its handler on an idle worker: outbox on Redis and taskiq, in turns.

::

    python -m benchmarks.peers.latency --python ENVIRONMENT/bin/python
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import click

from benchmarks.__main__ import new_loop
from benchmarks.environment import forget_settings
from benchmarks.latency import PERCENTS, ROOT, SOCKET, WARM_UP, measure
from benchmarks.peers.programs.where import VARIABLE
from benchmarks.percentiles import percentile
from benchmarks.stores import Store, opened

_PROGRAM = "benchmarks.peers.programs.taskiq_latency"
INTERVAL = 0.05


def _taskiq(python: str, store: Store, jobs: int) -> list[float]:
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="outbox-latency-"))
        environment = {**os.environ, VARIABLE: store.url, SOCKET: str(Path(directory) / "arrivals")}
        arguments = ("-m", "taskiq", "worker", f"{_PROGRAM}:broker", "--workers", "1", "--log-level", "ERROR")
        worker = stack.enter_context(subprocess.Popen((python, *arguments), cwd=ROOT, env=environment))
        stack.callback(worker.terminate)
        numbers = (str(jobs), str(INTERVAL), str(WARM_UP))
        told = subprocess.run(
            (python, "-m", _PROGRAM, *numbers), cwd=ROOT, env=environment, capture_output=True, check=True, text=True
        )
        return [float(line.split()[0]) * 1_000 for line in told.stdout.splitlines()]


def _outbox(store: Store, jobs: int) -> list[float]:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(measure(store.url, jobs=jobs, interval=INTERVAL)).after_commit


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--python", required=True, type=click.Path(exists=True), help="Of the environment with taskiq.")
@click.option("--jobs", type=click.IntRange(1), default=200, show_default=True)
@click.option("--repeat", type=click.IntRange(1), default=3, show_default=True)
def main(python: str, jobs: int, repeat: int) -> None:
    """Measure the start latency of outbox and of taskiq on one Redis, in turns."""
    forget_settings()
    python = str(Path(python).absolute())
    with tempfile.TemporaryDirectory(prefix="outbox-bench-") as place, opened("redis", Path(place)) as store:
        click.echo(f"{'milliseconds':<12}" + "".join(f"{f'p{percent}':>9}" for percent in PERCENTS))
        for _ in range(repeat):
            store.clear()
            _show("outbox", _outbox(store, jobs))
            store.clear()
            _show("taskiq", _taskiq(python, store, jobs))


def _show(name: str, found: Sequence[float]) -> None:
    click.echo(f"{name:<12}" + "".join(f"{percentile(found, percent):>9.2f}" for percent in PERCENTS))


if __name__ == "__main__":
    main()
