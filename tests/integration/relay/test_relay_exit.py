"""Programs that end right after a commit: what they committed for Redis is there, and no end takes long."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from outbox.drivers.database import DatabaseDriver
from outbox.drivers.redis import RedisDriver
from outbox.drivers.values import JobState
from outbox.relay.thread import FLUSH_SECONDS
from tests.support.worker_processes import ROOT

pytestmark = [
    pytest.mark.redis,
    pytest.mark.skipif(
        (3, 12) <= sys.version_info < (3, 12, 3), reason="starts no threads at its end (python/cpython#113964)"
    ),
]

WAITING = ">redis"
TEARDOWN_SECONDS = 30.0
"""What an interpreter with SQLAlchemy in it may take to end on a busy machine, with no relay at all. A relay that were
waited for would take longer: as long as it is `PATIENT`, or as a silent Redis has to answer."""

on_one_database = pytest.mark.parametrize("backend", [pytest.param("mysql", marks=pytest.mark.mysql)], indirect=True)

PRELUDE = """
import asyncio, os, threading, time
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from outbox import dispatch_many, sync
from outbox.client_state import default_client
from outbox.relay.thread import RelayThreads
from tests.support.orders import Receipt, async_engine, sync_engine

url = os.environ["DATABASE_URL"]
receipts = [Receipt(order_id=number) for number in range(3)]

def commit():
    engine = sync_engine(url)
    with Session(engine) as session, session.begin():
        sync.dispatch_many(receipts, session=session, connection="redis")
    engine.dispose()

def say_the_time():
    print(time.monotonic(), flush=True)
"""

PATIENT = """
default_client.part(RelayThreads).seconds_left = 45.0
"""
"""On a busy machine, a thread may not have opened its connections within the usual two seconds."""

SYNC = """
commit()
say_the_time()
"""

ASYNC = """
async def main():
    engine = async_engine(url)
    async with AsyncSession(engine) as session, session.begin():
        await dispatch_many(receipts, session=session, connection="redis")
    await engine.dispose()

asyncio.run(main())
say_the_time()
"""

AFTER_THE_MAIN_THREAD = """
def work():
    threading.main_thread().join()
    commit()
    say_the_time()

threading.Thread(target=work).start()
"""

CHILD = """
import multiprocessing

def main():
    default_client.part(RelayThreads).seconds_left = 45.0
    commit()
    say_the_time()

child = multiprocessing.get_context("fork").Process(target=main)
child.start()
child.join()
"""

INTERRUPTED = """
import signal, sys

def sleeps(thread):
    with open(f"/proc/self/task/{thread}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0] == "S"

def interrupt():
    while not default_client.part(RelayThreads)._ending.is_set():
        time.sleep(0.001)
    # A signal that comes a moment before a wait is heard after it: until the main thread has slept for a while.
    slept = 0
    while slept < 10:
        slept = slept + 1 if sleeps(threading.main_thread().native_id) else 0
        time.sleep(0.02)
    signal.pthread_kill(threading.main_thread().ident, signal.SIGTERM)

if os.environ["HANDLER"] == "exits":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
else:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
threading.Thread(target=interrupt, daemon=True).start()
commit()
say_the_time()
"""


@dataclass(frozen=True)
class Ended:
    """How a program did."""

    code: int
    errors: str
    took: float
    """Seconds from its last statement to its end."""


def run(program: str, database_url: str, redis_url: str) -> Ended:
    ran = subprocess.run(
        [sys.executable, "-c", PRELUDE + program],
        cwd=ROOT, env={**os.environ, "DATABASE_URL": database_url, "REDIS_URL": redis_url},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ran.stdout, ran.stderr
    return Ended(ran.returncode, ran.stderr, time.monotonic() - float(ran.stdout))


def by_name(url: str) -> str:
    """The same server, to reach which a name has to be resolved."""
    return url.replace("127.0.0.1", "localhost")


async def arrived(redis: RedisDriver) -> int:
    return sum(count.ready for count in await redis.queues.counts())


async def states(database: DatabaseDriver) -> set[str]:
    return {job.state for job in await database.jobs.list_jobs(WAITING)}


@pytest.mark.parametrize("program", [pytest.param(SYNC, id="sync"), pytest.param(ASYNC, id="async")])
async def test_what_a_program_committed_right_before_its_end_is_in_redis(
    migrated_url: str, redis_url: str, database: DatabaseDriver, redis: RedisDriver, program: str
) -> None:
    ended = run(PATIENT + program, by_name(migrated_url), by_name(redis_url))
    assert (ended.code, ended.errors) == (0, "")
    assert await arrived(redis) == 3
    assert await states(database) == {"delayed"}, "a row is still held, or was not moved"


@on_one_database
async def test_so_is_what_another_thread_commits_after_the_end_of_the_main_one(
    migrated_url: str, redis_url: str, database: DatabaseDriver, redis: RedisDriver
) -> None:
    ended = run(PATIENT + AFTER_THE_MAIN_THREAD, migrated_url, redis_url)
    assert (ended.code, ended.errors) == (0, "")
    assert await arrived(redis) == 3
    assert await states(database) == {"delayed"}


@on_one_database
async def test_so_is_what_a_forked_child_commits(
    migrated_url: str, redis_url: str, database: DatabaseDriver, redis: RedisDriver
) -> None:
    ended = run(CHILD, by_name(migrated_url), by_name(redis_url))
    assert (ended.code, ended.errors) == (0, "")
    assert await arrived(redis) == 3
    assert await states(database) == {"delayed"}


@on_one_database
async def test_where_names_are_not_resolved_any_more_the_jobs_are_left_to_the_workers_in_one_line(
    migrated_url: str, redis_url: str
) -> None:
    ended = run(PATIENT + AFTER_THE_MAIN_THREAD, by_name(migrated_url), by_name(redis_url))
    assert ended.code == 0
    [line] = ended.errors.splitlines()
    assert "left to the workers" in line


@pytest.fixture
def refusing() -> str:
    """A Redis that is not there."""
    return "redis://localhost:1/0"


@pytest.fixture
def silent() -> Iterator[str]:
    """One that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"redis://127.0.0.1:{server.getsockname()[1]}/0?socket_timeout=120"


@on_one_database
async def test_a_redis_that_is_not_there_delays_no_end(
    migrated_url: str, database: DatabaseDriver, refusing: str
) -> None:
    ended = run(PATIENT + SYNC, by_name(migrated_url), refusing)
    assert ended.code == 0
    assert ended.took < FLUSH_SECONDS + TEARDOWN_SECONDS
    [line] = ended.errors.splitlines()
    assert "left to the workers" in line
    assert JobState.RESERVED not in await states(database)
    assert await database.relay_source.has_unrelayed(WAITING)


@on_one_database
async def test_a_redis_that_does_not_answer_delays_the_end_for_a_moment(migrated_url: str, silent: str) -> None:
    ended = run(SYNC, by_name(migrated_url), silent)
    assert (ended.code, ended.errors) == (0, "")
    assert ended.took < FLUSH_SECONDS + TEARDOWN_SECONDS


@on_one_database
@pytest.mark.parametrize("handler", ["exits", "interrupts"])
async def test_who_does_not_want_to_wait_for_it_interrupts_it(
    migrated_url: str, silent: str, monkeypatch: pytest.MonkeyPatch, handler: str
) -> None:
    monkeypatch.setenv("HANDLER", handler)
    ended = run(PATIENT + INTERRUPTED, by_name(migrated_url), silent)
    assert (ended.code, ended.errors) == (0, "")
    assert ended.took < TEARDOWN_SECONDS
