"""``python -m tests.crash.dispatching_app COUNT``: an application that dies between its commits and their relay.

It dispatches jobs for Redis, each in a transaction. Every fifth rolls back. It prints the ids of the committed ones and
kills itself after the last commit, before anything is relayed.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from sqlalchemy.ext.asyncio import AsyncSession

from outbox import dispatch
from tests.support.orders import async_engine
from tests.support.recorded_jobs import Counted


async def main(count: int) -> None:
    engine = async_engine(os.environ["DATABASE_URL"])
    for number in range(count):
        async with AsyncSession(engine) as session:
            job_id = await dispatch(Counted(number=number), session=session, connection="redis")
            if number % 5 == 4:
                await session.flush()
                await session.rollback()
            else:
                await session.commit()
                print(job_id, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
