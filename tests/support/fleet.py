"""What releases side by side run: a job, and an application that dispatches it. They use public names only.

``python -m tests.support.fleet FIRST STOP`` dispatches the numbers FIRST, FIRST + 2, …, one transaction
each, until the file STOP is there. Every fifth rolls back. Of each other one it says the number, and when it was there.
Both say which release of outbox they run with.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncSession

import outbox
from outbox import Job, dispatch
from tests.support.orders import async_engine
from tests.support.recorded_jobs import note

_PAUSE_SECONDS = 0.02
_JOB_SECONDS = 0.15
"""Too long for one worker alone: the idle one of two would look ever more rarely, and find nothing for a long time."""


def is_retried(number: int) -> bool:
    return number % 7 == 0


class Numbered(Job):
    name = "fleet.Numbered"
    max_tries = 3
    backoff = 0

    number: int

    async def handle(self) -> None:
        note("begin", self, error=outbox.__file__)
        if is_retried(self.number) and self.context.attempt == 1:
            raise ValueError("the first attempt fails")
        await asyncio.sleep(_JOB_SECONDS)
        note("end", self)


async def dispatch_numbers(first: int, stopped: Callable[[], bool]) -> None:
    engine = async_engine(os.environ["DATABASE_URL"])
    print(outbox.__file__, flush=True)
    for count in itertools.count():
        if stopped():
            break
        number = first + 2 * count
        async with AsyncSession(engine) as session:
            await dispatch(Numbered(number=number), session=session)
            if count % 5 == 4:
                await session.flush()
                await session.rollback()
            else:
                await session.commit()
                print(number, time.monotonic(), flush=True)
        await asyncio.sleep(_PAUSE_SECONDS)
    await engine.dispose()


if __name__ == "__main__":
    asyncio.run(dispatch_numbers(int(sys.argv[1]), Path(sys.argv[2]).exists))
