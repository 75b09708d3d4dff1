"""Resources: what jobs of a worker share, and what each of them has for itself."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self, TextIO

from outbox import Job, Resources


class Prices:
    """Asks a service, over one pool of connections."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    async def of(self, article: str) -> float:
        return float(len(article))


class JobLog:
    """What one job has done, line by line."""

    def __init__(self, file: TextIO) -> None:
        self.file = file

    def note(self, line: str) -> None:
        self.file.write(f"{line}\n")


# shop/resources.py: `--lifespan shop.resources:lifespan`
@asynccontextmanager
async def lifespan(resources: Resources) -> AsyncIterator[None]:
    async with Prices() as prices:
        resources.provide(Prices, prices)
        resources.provide(JobLog, open_log, scope="job")
        yield  # jobs run


def open_log(job: Job) -> Iterator[JobLog]:
    with Path("jobs.log").open("a") as file:
        yield JobLog(file)
        file.write(f"closed after attempt {job.context.attempt}\n")


class CheckPrice(Job):
    article: str

    async def handle(self, prices: Prices, log: JobLog) -> None:
        log.note(f"{self.article} costs {await prices.of(self.article):.2f}")
