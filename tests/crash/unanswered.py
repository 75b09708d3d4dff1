"""A worker whose database is killed between a commit and its answer, or frozen before a commit. Named in OUTBOX_JOBS
beside the jobs."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from outbox.drivers.database.connection.raw_connection import RawConnection
from outbox.drivers.database.jobs.job_store import DatabaseJobs

_verb: ContextVar[str] = ContextVar("verb", default="")


def during(verb: str) -> None:
    call: Callable[..., Awaitable[Any]] = getattr(DatabaseJobs, verb)

    async def known(self: DatabaseJobs, *arguments: Any, **options: Any) -> Any:
        token = _verb.set(verb)
        try:
            return await call(self, *arguments, **options)
        finally:
            _verb.reset(token)

    setattr(DatabaseJobs, verb, known)


def order_for(verb: str, log: Path, what: str = "kill") -> Path:
    """A file with the number of the server's process, taken away by the worker that kills it, or has to ``freeze`` it.
    It is frozen until another process lets it go on."""
    return log.with_name(f"{what} during {verb}")


def carry_out(order: Path, number: signal.Signals) -> bool:
    """Whether there was this order."""
    if not order.exists():
        return False
    server = int(order.read_text(encoding="utf-8"))
    order.unlink()
    os.kill(server, number)
    return True


_commit = RawConnection.commit


async def commit(self: RawConnection) -> None:
    verb, log = _verb.get(), Path(os.environ["RUN_LOG"])
    if carry_out(order_for(verb, log, "freeze"), signal.SIGSTOP):
        await asyncio.sleep(0.2)  # for as long as some of its threads may run
    await _commit(self)
    if carry_out(order_for(verb, log), signal.SIGKILL):
        raise ConnectionResetError("no answer")


if "RUN_LOG" in os.environ:  # in a worker; the tests' own process imports this for its names
    during("claim")
    during("settle")
    # No listener of the engine, with which a worker would not use `RawConnection`.
    RawConnection.commit = commit  # type: ignore[method-assign]
