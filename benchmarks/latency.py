"""From the commit of a job to the first line of its handler, on an idle worker process.

::

    python -m benchmarks.latency mysql+asyncmy://root@127.0.0.1/bench --wake binlog
    python -m benchmarks.latency mysql+asyncmy://root@127.0.0.1/bench --wake redis --redis redis://127.0.0.1:6379/0
    python -m benchmarks.latency redis://127.0.0.1:6379/0
    python -m benchmarks.latency mysql+asyncmy://root@127.0.0.1/bench --wake binlog --processes 2

One job is dispatched every 50 ms, when the one before has run: nothing queues, so that what is measured is how long it
takes to notice and to claim. Both processes read the same clock of the machine. The clock starts when COMMIT returns
(for Redis: when ``dispatch`` returns); the column beside it counts from when COMMIT was sent, the disk included.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import tempfile
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import click
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from benchmarks.percentiles import percentile
from outbox import Job, configure, disconnect, dispatch, metadata

ROOT = Path(__file__).parents[1]
QUEUE = "benchmark.latency"
TIMEOUT = 20.0
PERCENTS = (50, 95, 99)

SOCKET = "OUTBOX_BENCHMARK_SOCKET"
WARM_UP = 20
"""Jobs that are not counted: the first ones open connections and compile what Python has not compiled yet."""


class Arrives(Job):
    """Says when its handler was entered."""

    name = "benchmarks.Arrives"
    queue = QUEUE

    number: int

    async def handle(self) -> None:
        entered = time.monotonic()
        _report(f"{self.number} {entered!r}")


def _report(message: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.sendto(message.encode(), os.environ[SOCKET])


@dataclass(slots=True)
class Latencies:
    """Milliseconds, one for each job."""

    woken_by: str = ""
    after_commit: list[float] = field(default_factory=list)
    """Since COMMIT had returned. Negative where a binary log was quicker than the answer to COMMIT."""
    with_commit: list[float] = field(default_factory=list)
    """Since COMMIT was sent."""


Dispatch = Callable[[Arrives], Awaitable[tuple[float, float]]]
"""Stores a job; returns when that began and ended."""


async def measure(
    url: str,
    *,
    wake: str = "auto",
    redis_url: str | None = None,
    jobs: int = 200,
    interval: float = 0.05,
    processes: int = 1,
) -> Latencies:
    """With jobs in the database or the Redis of ``url``, in whose way nobody else is."""
    is_redis = "redis" in url.partition(":")[0]
    environment = {"REDIS_URL": url, "QUEUE_CONNECTION": "redis"} if is_redis else {"DATABASE_URL": url}
    if redis_url is not None:
        environment["REDIS_URL"] = redis_url
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="outbox-latency-")))
        line = stack.enter_context(_listening(directory / "arrivals"))
        if is_redis:
            configure(redis_url=url, connection="redis")
        else:
            configure(database_url=url, redis_url=redis_url)
        stack.push_async_callback(_forget)
        send = _alone if is_redis else await stack.enter_async_context(_in_transactions(url))
        environment[SOCKET] = str(directory / "arrivals")
        woken_by = await stack.enter_async_context(_worker(directory, environment, wake, processes))
        return await _run(Latencies(woken_by), send, line, jobs, interval)


async def _forget() -> None:
    await disconnect()
    configure()


def _listening(path: Path) -> socket.socket:
    line = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    line.bind(str(path))
    line.setblocking(False)
    return line


@asynccontextmanager
async def _in_transactions(url: str) -> AsyncIterator[Dispatch]:
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)

    async def send(job: Arrives) -> tuple[float, float]:
        async with AsyncSession(engine) as session:
            await dispatch(job, session=session)
            await session.flush()
            begun = time.monotonic()
            await session.commit()
            return begun, time.monotonic()

    yield send
    await engine.dispose()


async def _alone(job: Arrives) -> tuple[float, float]:
    begun = time.monotonic()
    await dispatch(job)
    return begun, time.monotonic()


@asynccontextmanager
async def _worker(directory: Path, environment: dict[str, str], wake: str, processes: int) -> AsyncIterator[str]:
    """Idle worker processes; yields what wakes them."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("OUTBOX_")}
    worker = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "outbox.work", "--queue", QUEUE, "--wake", wake, "--processes", str(processes)),
        cwd=directory,
        env={**inherited, **environment, "OUTBOX_JOBS": __spec__.name, "PYTHONPATH": path},
        stdout=PIPE,
    )
    assert worker.stdout is not None
    said: list[str] = []
    try:
        async for line in worker.stdout:
            said.append(line.decode())
            if sum("woken by" in each for each in said) == processes:
                break
        else:
            raise SystemExit("the worker did not start: " + "".join(said))
        rest = asyncio.create_task(worker.stdout.read())
        yield said[-1].rpartition("woken by ")[2].strip()
    finally:
        if worker.returncode is None:
            worker.terminate()
        await worker.wait()
    await rest


async def _run(found: Latencies, send: Dispatch, line: socket.socket, jobs: int, interval: float) -> Latencies:
    loop = asyncio.get_running_loop()
    for number in range(-WARM_UP, jobs):
        await asyncio.sleep(interval)
        begun, ended = await send(Arrives(number=number))
        async with asyncio.timeout(TIMEOUT):
            arrived, entered = (await loop.sock_recv(line, 100)).decode().split()
        if int(arrived) != number:
            raise SystemExit(f"job {arrived} ran instead of {number}: is somebody else using this queue?")
        if number >= 0:
            found.after_commit.append((float(entered) - ended) * 1_000)
            found.with_commit.append((float(entered) - begun) * 1_000)
    return found


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("url")
@click.option("--wake", type=click.Choice(["auto", "poll", "redis", "binlog"]), default="auto", show_default=True)
@click.option("--redis", "redis_url", metavar="URL", help="A Redis beside the database, for --wake redis.")
@click.option("--jobs", type=click.IntRange(1), default=200, show_default=True)
@click.option("--interval", type=float, default=0.05, show_default=True, help="Seconds between two jobs.")
@click.option("--processes", type=click.IntRange(1), default=1, show_default=True, help="Under a supervisor if > 1.")
def main(url: str, wake: str, redis_url: str | None, jobs: int, interval: float, processes: int) -> None:
    """Measure latency with jobs in the database or the Redis of URL, which nobody else uses meanwhile."""
    with asyncio.Runner(loop_factory=_new_loop()) as runner:
        found = runner.run(
            measure(url, wake=wake, redis_url=redis_url, jobs=jobs, interval=interval, processes=processes)
        )
    click.echo(f"woken by {found.woken_by}, {jobs} jobs, one every {interval * 1_000:g} ms")
    click.echo(f"{'milliseconds':<26}" + "".join(f"{f'p{percent}':>9}" for percent in PERCENTS))
    click.echo(_row("from the commit's return", found.after_commit))
    click.echo(_row("from the commit's start", found.with_commit))


def _row(title: str, values: Sequence[float]) -> str:
    return f"{title:<26}" + "".join(f"{percentile(values, percent):>9.2f}" for percent in PERCENTS)


def _new_loop() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


if __name__ == "__main__":
    main()
