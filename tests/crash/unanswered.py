"""A worker whose database is killed between a commit and its answer. Named in OUTBOX_JOBS beside the jobs."""

from __future__ import annotations

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


def order_for(verb: str, log: Path) -> Path:
    """A file with the number of the server's process, taken away by the worker that kills it."""
    return log.with_name(f"kill during {verb}")


_commit = RawConnection.commit


async def commit(self: RawConnection) -> None:
    await _commit(self)
    order = order_for(_verb.get(), Path(os.environ["RUN_LOG"]))
    if order.exists():
        server = int(order.read_text(encoding="utf-8"))
        order.unlink()
        os.kill(server, signal.SIGKILL)
        raise ConnectionResetError("no answer")


if "RUN_LOG" in os.environ:  # in a worker; the tests' own process imports this for its names
    during("claim")
    during("settle")
    # No listener of the engine, with which a worker would not use `RawConnection`.
    RawConnection.commit = commit  # type: ignore[method-assign]
