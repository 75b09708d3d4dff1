"""``python -m benchmarks.peers --python ENVIRONMENT/bin/python``: who drains how fast, in turns on one machine."""

from __future__ import annotations

import asyncio
import json
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import click

from benchmarks import facts, screen
from benchmarks.__main__ import RESULTS, new_loop, terminal
from benchmarks.environment import forget_settings
from benchmarks.filling import Fill, fill
from benchmarks.peers.contenders import (
    DURABLE,
    KEYS,
    OUTBOX_CONCURRENCY,
    OUTBOX_JOBS,
    PEERS,
    QUICK,
    REDIS,
    SQLITE,
    Peer,
)
from benchmarks.peers.postgres import postgres
from benchmarks.peers.programs.where import VARIABLE
from benchmarks.programs import Programs, start_workers
from benchmarks.results import Measurement, Run
from benchmarks.scenarios.policies import KEYED, Load
from benchmarks.stores import Store, opened

RATE = "jobs/s"


@dataclass(frozen=True, slots=True)
class Stores:
    """Those that are opened once, and emptied for each drain."""

    mysql: Store
    sqlite: Store
    redis: Store

    def __iter__(self) -> Iterator[Store]:
        return iter((self.mysql, self.sqlite, self.redis))


@dataclass(frozen=True, slots=True)
class Contender:
    name: str
    family: str
    drain: Callable[[Path], Awaitable[float]]
    """Jobs per second, from the first handler to the last."""
    against: str | None = None
    """The contender that it is compared with."""


async def _outbox(directory: Path, store: Store, processes: int, jobs: int, load: Load | None = None) -> float:
    store.clear()
    if load is None:
        await fill(store, Fill(jobs))
    else:
        async with store.in_use():
            await load.dispatch(jobs)
    async with Programs(directory) as programs:
        await start_workers(programs, store, processes, "--concurrency", str(OUTBOX_CONCURRENCY))
        return (await programs.ran(jobs)).rate


async def _peer(directory: Path, peer: Peer, python: str, redis: Store, jobs: int) -> float:
    """On an empty store, which for PostgreSQL means a server of its own."""
    if peer.family == REDIS:
        redis.clear()
        return await _drain(directory, peer, python, redis.url, jobs)
    if peer.family == SQLITE:
        return await _drain(directory, peer, python, str(directory / "jobs.sqlite3"), jobs)
    with postgres(directory / "postgres") as url:
        return await _drain(directory, peer, python, url, jobs)


async def _drain(directory: Path, peer: Peer, python: str, url: str, jobs: int) -> float:
    environment = {VARIABLE: url}
    async with Programs(directory, python) as programs:
        enqueuing = await programs.start("-m", peer.program, str(jobs), environment=environment)
        await enqueuing.wait()
        programs.check()
        for _ in range(peer.commands):
            await programs.start(*peer.worker, environment=environment)
        return (await programs.ran(jobs)).rate


def _contenders(python: str, stores: Stores, divisor: int, peers: Sequence[Peer]) -> Iterator[Contender]:
    """Family by family, so that what is compared is measured close together. The first of each is outbox.

    Processes on SQLite do not add up, as it has one writer at a time, so outbox is there with one as well.
    """
    for family, where, store, shapes in (
        (DURABLE, "outbox, MySQL", stores.mysql, (2,)),
        (SQLITE, "outbox, SQLite", stores.sqlite, (2, 1)),
        (REDIS, "outbox, Redis", stores.redis, (2,)),
    ):
        rivals = [peer for peer in peers if peer.family == family]
        if not rivals:
            continue
        names = [f"{where}, {count} process{'es' if count > 1 else ''} of {OUTBOX_CONCURRENCY}" for count in shapes]
        jobs = OUTBOX_JOBS[family] // divisor
        for name, count in zip(names, shapes, strict=True):
            drain = partial(_outbox, store=store, processes=count, jobs=jobs)
            yield Contender(name, family, drain, None if name == names[0] else names[0])
        yield from _peers(rivals, names[0], python, stores.redis, divisor)
    rivals = [peer for peer in peers if peer.family == KEYS]
    if rivals:
        jobs = OUTBOX_JOBS[KEYS] // divisor
        names = [f"outbox, MySQL, 2 processes of {OUTBOX_CONCURRENCY}, {load.name}" for load in KEYED]
        for name, load in zip(names, KEYED, strict=True):
            drain = partial(_outbox, store=stores.mysql, processes=2, jobs=jobs, load=load)
            yield Contender(name, KEYS, drain, None if name == names[0] else names[0])
        yield from _peers(rivals, names[0], python, stores.redis, divisor)


def _peers(peers: Sequence[Peer], against: str, python: str, redis: Store, divisor: int) -> Iterator[Contender]:
    for peer in peers:
        drain = partial(_peer, peer=peer, python=python, redis=redis, jobs=peer.jobs // divisor)
        yield Contender(peer.name, peer.family, drain, against)


@contextmanager
def _stores(directory: Path) -> Iterator[Stores]:
    with (
        opened("mysql", directory / "mysql") as mysql,
        opened("sqlite", directory / "sqlite") as sqlite,
        opened("redis", directory / "redis") as redis,
    ):
        yield Stores(mysql, sqlite, redis)


@contextmanager
def _place(within: Path | None) -> Iterator[Path]:
    """A temporary directory that PostgreSQL, which runs as another user, can reach."""
    with tempfile.TemporaryDirectory(prefix="outbox-bench-", dir=within) as name:
        place = Path(name)
        place.chmod(0o755)
        yield place


async def _measure(
    contenders: Sequence[Contender], repeat: int, directory: Path, tell: Callable[[str], None], failures: list[str]
) -> dict[str, list[float]]:
    rates: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for cycle in range(repeat):
        for contender in contenders if cycle % 2 == 0 else reversed(contenders):
            with _place(directory) as place:
                try:
                    rate = await contender.drain(place)
                except Exception as error:  # noqa: BLE001 - one that fails must not cost the others' results
                    failures.append(f"{contender.name}: {type(error).__name__}: {error}")
                    continue
            rates[contender.name].append(rate)
            tell(f"{contender.name}: {rate:,.0f} {RATE}")
    return rates


def _measurement(contender: Contender, rates: Sequence[float]) -> Measurement:
    return Measurement(
        f"peers-{contender.family.lower()}",
        f"Drain a full queue of no-op jobs: {contender.family}",
        contender.family,
        contender.name,
        contender.against,
        RATE,
        None,
        {RATE: rates},
        (),
    )


def _versions(python: str) -> dict[str, str]:
    """Of the other queues, as far as they are installed."""
    listing = subprocess.run([python, "-m", "pip", "list", "--format", "json"], capture_output=True, check=True)
    installed = {package["name"].lower(): package["version"] for package in json.loads(listing.stdout)}
    return {peer.package: installed[peer.package] for peer in PEERS if peer.package in installed}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--python", required=True, type=click.Path(exists=True), help="Of the environment with the other queues.")
@click.option("--only", default="", metavar="PACKAGE[,PACKAGE]", help=f"Of {', '.join(p.package for p in PEERS)}.")
@click.option("--quick", is_flag=True, help="Few jobs and one cycle: whether everything works.")
@click.option("--repeat", type=click.IntRange(1), help="Cycles. Default: 3, with --quick 1.")
@click.option("--directory", type=click.Path(exists=True, file_okay=False, path_type=Path), help="For all data.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Where results are written.")
def main(
    python: str, only: str, quick: bool, repeat: int | None, directory: Path | None, json_file: Path | None
) -> None:
    """Drain a queue with outbox and with other queues, in turns."""
    forget_settings()
    console = terminal()
    tell = partial(console.print, style="dim", markup=False)
    python = str(Path(python).absolute())
    versions = _versions(python)
    wanted = [each.strip() for each in only.split(",")] if only else [peer.package for peer in PEERS]
    peers = [peer for peer in PEERS if peer.package in wanted and peer.package in versions]
    for package in wanted:
        if package not in versions:
            tell(f"left out: {package} is not installed for {python}")
    cycles = repeat or (1 if quick else 3)
    started, begun = datetime.now(UTC), time.monotonic()
    failures: list[str] = []
    with _place(directory) as place:
        conditions = {"machine": dict(facts.machine(place)), "versions": {**facts.versions(), **versions}}
        with _stores(place) as stores, asyncio.Runner(loop_factory=new_loop) as loop:
            contenders = list(_contenders(python, stores, QUICK if quick else 1, peers))
            for store in stores:
                conditions[store.kind] = dict(loop.run(facts.settings(store)))
            rates = loop.run(_measure(contenders, cycles, place, tell, failures))
    measurements = [_measurement(each, rates[each.name]) for each in contenders if rates[each.name]]
    minutes = (time.monotonic() - begun) / 60
    run = Run(started.isoformat(timespec="seconds"), minutes, quick, cycles, conditions, measurements, failures)
    screen.show(console, run)
    path = json_file or RESULTS / f"peers-{started:%Y-%m-%d-%H%M%S}.json"
    run.save(path)
    console.print(f"written: {path}", markup=False)
    raise SystemExit(1 if failures else 0)


if __name__ == "__main__":
    main()
