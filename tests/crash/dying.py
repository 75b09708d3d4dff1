"""A worker that kills itself in the middle of writing how jobs ended. Named in OUTBOX_JOBS beside the jobs."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, event

from outbox.drivers.base import Settled
from outbox.drivers.database import DatabaseDriver
from outbox.settlement import Settlement

BEFORE_COMMIT = "before the commit"
AFTER_COMMIT = "after the commit"

_settling: ContextVar[bool] = ContextVar("settling", default=False)
_settle = DatabaseDriver.settle


def die(moment: str) -> None:
    """Once, in one process: the marker is taken away by whoever dies."""
    marker = Path(os.environ["RUN_LOG"]).with_name("die")
    if marker.exists() and marker.read_text(encoding="utf-8") == moment:
        marker.unlink()
        os.kill(os.getpid(), signal.SIGKILL)


async def settle(self: DatabaseDriver, settlements: Sequence[Settlement]) -> Settled:
    token = _settling.set(True)
    try:
        settled = await _settle(self, settlements)
        die(AFTER_COMMIT)
        return settled
    finally:
        _settling.reset(token)


def before_commit(connection: Connection) -> None:
    # All statements of the transaction have been executed by now; only COMMIT has not been sent.
    if _settling.get():
        die(BEFORE_COMMIT)


def install(**_: Any) -> None:
    DatabaseDriver.settle = settle  # type: ignore[method-assign]
    event.listen(Engine, "commit", before_commit)


if "RUN_LOG" in os.environ:  # in a worker; the tests' own process imports this for its names
    install()
