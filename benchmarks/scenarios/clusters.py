"""Servers that agree at COMMIT: what it costs to claim on one of them, and on two."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

from sqlalchemy import event, text

from benchmarks.jobs import NoOp
from benchmarks.programs import ProgramFailedError
from benchmarks.scenario import Sample, Scenario, Site, Variant
from benchmarks.sizes import Sizes
from benchmarks.stores import Store
from outbox import metadata
from outbox.drivers.database import DatabaseDriver
from outbox.drivers.database.connection.errors import Fault, classify
from outbox.envelope import Envelope
from outbox.errors import BackendUnavailable
from outbox.ids import new_job_id
from outbox.settlement import Settlement
from tests.servers import LocalServer, MariaDB, MySQL, databases, galera, group_replication
from tests.servers.sql import connection

RATE = "jobs/s"
_NODES, _CLAIMERS, _BATCH = 3, 4, 50
_DATABASE = "bench"
_LOOKS, _LOOK_EVERY = 600, 0.1

Cluster = Callable[[Path], Any]


@contextmanager
def _galera(directory: Path) -> Iterator[Sequence[LocalServer]]:
    with galera.cluster(directory, _NODES) as nodes:
        yield nodes


@contextmanager
def _one_primary(directory: Path) -> Iterator[Sequence[LocalServer]]:
    with group_replication.group(directory, _NODES) as members:
        yield members[:1]


@contextmanager
def _primaries(directory: Path) -> Iterator[Sequence[LocalServer]]:
    with group_replication.group(directory, _NODES, many=True) as members:
        yield members


@contextmanager
def _alone(directory: Path, kind: type[LocalServer]) -> Iterator[Sequence[LocalServer]]:
    with kind(directory) as server:
        yield [server]


async def _measure(site: Site, cluster: Cluster, used: int) -> Sample:
    """Claimers that claim, settle and claim again, in turns on the first ``used`` servers, all in this process."""
    jobs = site.sizes.distant
    with cluster(site.directory / "servers") as nodes:
        urls = [f"{node.url}/{_DATABASE}" for node in nodes[:used]]
        _make_tables(nodes[0].url, urls)
        drivers = [DatabaseDriver(urls[number % used], pool_size=1) for number in range(_CLAIMERS)]
        refused = _Refused(drivers)
        await drivers[0].jobs.insert(
            [Envelope(new_job_id(), "default", NoOp.name, 5, '{"number":1}') for _ in range(jobs)]
        )
        await _arrived(drivers, jobs)
        taken: list[Any] = []
        begun = perf_counter()
        claims = sum(await asyncio.gather(*(_drain(driver, taken, jobs) for driver in drivers)))
        seconds = perf_counter() - begun
        for driver in drivers:
            await driver.close()
    return Sample(
        {
            RATE: jobs / seconds,
            "refused per 100 claims": 100 * refused.count / claims,
            "jobs taken twice": len(taken) - len(set(taken)),
        }
    )


class _Refused:
    """How often a transaction was undone because another one was first."""

    def __init__(self, drivers: Sequence[DatabaseDriver]) -> None:
        self.count = 0
        for driver in drivers:
            engine = driver._database.engine.sync_engine  # noqa: SLF001 - counts what is retried, which nobody is told
            event.listen(engine, "handle_error", self._note)

    def _note(self, context: Any) -> None:
        self.count += classify(context.sqlalchemy_exception) is Fault.CONTENDED


async def _drain(driver: DatabaseDriver, taken: list[Any], jobs: int) -> int:
    """Until all are taken. Returns how many claims brought something."""
    count = 0
    while len(taken) < jobs:
        try:
            claims = await driver.jobs.claim(["default"], _BATCH, 60)
        except BackendUnavailable:
            continue  # refused ten times in a row, all of them counted: a worker begins again as well
        taken += [claim.fence.job_id for claim in claims]
        count += bool(claims)
        await driver.jobs.settle([Settlement.completed(claim.fence) for claim in claims])
    return count


def _make_tables(server: str, urls: Sequence[str]) -> None:
    with connection(server) as opened:
        opened.execute(text(f"CREATE DATABASE {_DATABASE}"))
    databases.create_tables(urls[0], metadata)


async def _arrived(drivers: Sequence[DatabaseDriver], jobs: int) -> None:
    """Wait until what was committed on the first server has been applied on the others."""
    for driver in drivers:
        for _ in range(_LOOKS):
            if sum(counts.ready for counts in await driver.queues.counts()) == jobs:
                break
            await asyncio.sleep(_LOOK_EVERY)
        else:
            raise ProgramFailedError(f"{jobs} jobs did not reach every server in {_LOOKS * _LOOK_EVERY:.0f} s")


def _on_galera(_: Store, __: Sizes) -> Sequence[Variant]:
    one = "Galera of 3, claims on 1 node"
    return [
        Variant("1 server", partial(_measure, cluster=partial(_alone, kind=MariaDB), used=1), one),
        Variant(one, partial(_measure, cluster=_galera, used=1)),
        Variant("Galera of 3, claims on 2 nodes", partial(_measure, cluster=_galera, used=2), one),
        Variant("Galera of 3, claims on 3 nodes", partial(_measure, cluster=_galera, used=3), one),
    ]


def _on_a_group(_: Store, __: Sizes) -> Sequence[Variant]:
    one = "group of 3, 1 primary"
    return [
        Variant("1 server", partial(_measure, cluster=partial(_alone, kind=MySQL), used=1), one),
        Variant(one, partial(_measure, cluster=_one_primary, used=1)),
        Variant("group of 3, claims on 2 primaries", partial(_measure, cluster=_primaries, used=2), one),
        Variant("group of 3, claims on 3 primaries", partial(_measure, cluster=_primaries, used=3), one),
    ]


GALERA = Scenario(
    "scale-galera",
    f"{_CLAIMERS} claimers of {_BATCH} jobs on a Galera cluster of {_NODES} nodes",
    _on_galera,
    compared=RATE,
    stores=("mariadb",),
    missing=galera.missing,
)
GROUP_REPLICATION = Scenario(
    "scale-group-replication",
    f"{_CLAIMERS} claimers of {_BATCH} jobs on a MySQL group of {_NODES} members",
    _on_a_group,
    compared=RATE,
    stores=("mysql",),
    missing=group_replication.missing,
)
