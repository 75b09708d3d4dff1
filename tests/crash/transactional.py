"""Jobs with a session, whose process is killed at a chosen step of their transaction. Named in OUTBOX_JOBS."""

from __future__ import annotations

import os
import random
import signal
import threading
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

import outbox.sync
from outbox import Job, dispatch

BEFORE, INSIDE, FLUSHED, DELETED, COMMITTING, COMMITTED = STEPS = range(6)
EVERY = 160
"""Of so many jobs, one kills its process."""

_INSERT = "INSERT INTO {} (number) VALUES (:number)"
_number: ContextVar[int | None] = ContextVar("number", default=None)


def reach(step: int) -> None:
    """Die here, if the running job is to die at this step and has not died yet."""
    number = _number.get()
    if number is None or number % EVERY or number // EVERY % len(STEPS) != step:
        return
    try:
        os.close(os.open(Path(os.environ["RUN_LOG"]).with_name(f"died-{number}"), os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    if step == COMMITTING:
        threading.Timer(random.uniform(0, 0.002), die).start()
    else:
        die()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Follow(Job):
    max_tries = 100
    number: int

    async def handle(self, session: AsyncSession) -> None:
        await session.execute(text(_INSERT.format("follow_effects")), {"number": self.number})


class Effect(Job):
    max_tries = 100
    number: int

    async def handle(self, session: AsyncSession) -> None:
        _number.set(self.number)
        reach(BEFORE)
        await session.execute(text(_INSERT.format("effects")), {"number": self.number})
        await dispatch(Follow(number=self.number), session=session)
        reach(INSIDE)


class EffectInThread(Job):
    max_tries = 100
    number: int

    def handle(self, session: Session) -> None:
        _number.set(self.number)
        reach(BEFORE)
        session.execute(text(_INSERT.format("effects")), {"number": self.number})
        outbox.sync.dispatch(Follow(number=self.number), session=session)
        reach(INSIDE)


def _deletes(statement: str) -> bool:
    return statement.startswith("DELETE") and "queue_jobs" in statement


if "RUN_LOG" in os.environ:  # in a worker; the tests' own process imports this for its names

    @event.listens_for(Engine, "before_cursor_execute")
    def before(_: Any, __: Any, statement: str, *___: Any) -> None:
        if _deletes(statement):
            reach(FLUSHED)

    @event.listens_for(Engine, "after_cursor_execute")
    def after(_: Any, __: Any, statement: str, *___: Any) -> None:
        if _deletes(statement):
            reach(DELETED)

    @event.listens_for(Session, "before_commit")
    def before_commit(_: Session) -> None:
        reach(COMMITTING)

    @event.listens_for(Session, "after_commit")
    def after_commit(_: Session) -> None:
        reach(COMMITTED)
