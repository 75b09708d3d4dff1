"""Results: a finished job is kept for an hour, and one that runs says how far it is."""

import asyncio

import outbox
from outbox import Job, dispatch
from outbox.errors import JobFailed


class CountRows(Job):
    keep_for = 3600  # seconds after its end

    rows: int

    async def handle(self) -> dict[str, int]:
        for row in range(self.rows):
            if row % 100 == 0:
                self.context.progress(row / self.rows, f"row {row:,} of {self.rows:,}")
        return {"rows": self.rows}


async def count(rows: int) -> None:
    job_id = await dispatch(CountRows(rows=rows))
    try:
        print(await outbox.result(job_id, timeout=30))
    except (TimeoutError, JobFailed) as error:
        print(error)


async def look(job_id: outbox.JobId) -> None:
    progress = await outbox.progress(job_id)  # a JobProgress, or None
    if progress is not None:
        print(f"{progress.fraction:.0%} {progress.text}")


async def main() -> None:
    async with outbox.Worker():
        await count(1_000)
    [job] = await outbox.finished_jobs(limit=1)
    await look(job.id)
    print(job.value, job.seconds < 30)
    await outbox.disconnect()


if __name__ == "__main__":
    asyncio.run(main())
