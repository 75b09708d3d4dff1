"""Who is compared, and how each one's workers are started."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

DURABLE, SQLITE, REDIS, KEYS = "databases", "SQLite", "Redis", "keys"
"""Who is compared with whom: queues on a database server that writes each commit to the disk, queues on an SQLite that
does so too, queues on a Redis that keeps them in memory, and jobs of 1,000 keys with a limit or an order on a database
server."""

_PROGRAMS = "benchmarks.peers.programs"


@dataclass(frozen=True, slots=True)
class Peer:
    """Another queue. Its workers are two processes, however they are started."""

    name: str
    package: str
    family: str
    program: str
    """The module that enqueues."""
    worker: Sequence[str]
    """Arguments of ``python`` for a worker."""
    commands: int
    """How many such commands make two worker processes."""
    jobs: int
    """So many that a drain takes some seconds."""


PEERS = (
    Peer(
        "PgQueuer, PostgreSQL, 2 processes, batches of 200",
        "pgqueuer",
        DURABLE,
        f"{_PROGRAMS}.pgqueuer",
        ("-m", f"{_PROGRAMS}.pgqueuer", "work"),
        commands=2,
        jobs=100_000,
    ),
    Peer(
        "Procrastinate, PostgreSQL, 2 processes of 10, finished jobs deleted",
        "procrastinate",
        DURABLE,
        f"{_PROGRAMS}.procrastinate",
        ("-m", f"{_PROGRAMS}.procrastinate", "work"),
        commands=2,
        jobs=6_000,
    ),
    Peer(
        "oban, PostgreSQL, 2 processes of 100",
        "oban",
        DURABLE,
        f"{_PROGRAMS}.oban",
        ("-m", f"{_PROGRAMS}.oban", "work"),
        commands=2,
        jobs=50_000,
    ),
    Peer(
        "huey, 2 processes, synchronous=FULL",
        "huey",
        SQLITE,
        f"{_PROGRAMS}.huey",
        (*("-m", "huey.bin.huey_consumer", f"{_PROGRAMS}.huey.queue"), *("-k", "process", "-w", "2", "-q")),
        commands=1,
        jobs=40_000,
    ),
    Peer(
        "dramatiq, 2 processes of 32 threads",
        "dramatiq",
        REDIS,
        f"{_PROGRAMS}.dramatiq",
        ("-m", "dramatiq", f"{_PROGRAMS}.dramatiq", "--processes", "2", "--threads", "32"),
        commands=1,
        jobs=50_000,
    ),
    Peer(
        "taskiq, stream with acknowledgements, 2 processes of 100",
        "taskiq-redis",
        REDIS,
        f"{_PROGRAMS}.taskiq",
        ("-m", "taskiq", "worker", f"{_PROGRAMS}.taskiq:broker", "--workers", "2", "--max-async-tasks", "100"),
        commands=1,
        jobs=40_000,
    ),
    Peer(
        "Celery, 2 processes of 10 threads, 64 prefetched each",
        "celery",
        REDIS,
        f"{_PROGRAMS}.celery",
        (
            *("-m", "celery", "-A", f"{_PROGRAMS}.celery", "worker", "--pool", "threads", "--concurrency", "10"),
            *("--prefetch-multiplier", "64", "--without-gossip", "--without-mingle", "--loglevel", "ERROR"),
        ),
        commands=2,
        jobs=15_000,
    ),
    Peer(
        "SAQ, 2 processes of 20",
        "saq",
        REDIS,
        f"{_PROGRAMS}.saq",
        ("-m", "saq", f"{_PROGRAMS}.saq.settings"),
        commands=2,
        jobs=20_000,
    ),
    Peer(
        "PgQueuer, PostgreSQL, 2 processes, 1,000 entrypoints, limit 10",
        "pgqueuer",
        KEYS,
        f"{_PROGRAMS}.pgqueuer_limits",
        ("-m", f"{_PROGRAMS}.pgqueuer_limits", "work"),
        commands=2,
        jobs=20_000,
    ),
    Peer(
        "Procrastinate, PostgreSQL, 2 processes of 10, 1,000 locks",
        "procrastinate",
        KEYS,
        f"{_PROGRAMS}.procrastinate_locks",
        ("-m", f"{_PROGRAMS}.procrastinate_locks", "work"),
        commands=2,
        jobs=6_000,
    ),
)

OUTBOX_JOBS = {DURABLE: 100_000, SQLITE: 60_000, REDIS: 100_000, KEYS: 50_000}
OUTBOX_CONCURRENCY = 1_000
QUICK = 20
"""By how much fewer jobs there are in a quick run."""
