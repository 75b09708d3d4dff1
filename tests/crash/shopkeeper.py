"""``python -m tests.crash.shopkeeper COUNT``: commits jobs for Redis, one transaction each, every fifth of which rolls
back; says which were committed; and kills itself when the last one is, before anything could be relayed."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from sqlalchemy.ext.asyncio import AsyncSession

from outbox import dispatch
from tests.crash.jobs import Counted
from tests.integration.shop import async_engine


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
