"""Cancelling jobs that run: what their handlers see, and what cleans up."""

import asyncio
import time
from pathlib import Path

from outbox import Job, Worker, cancel, disconnect, dispatch


class Render(Job):
    film: str

    async def handle(self) -> None:
        await asyncio.sleep(3600)  # asyncio.CancelledError is raised here

    def cancelled(self) -> None:  # when the handler has ended
        Path(f"{self.film}.cancelled").write_text("thrown away\n")


class Export(Job):
    def handle(self) -> None:
        while not self.context.cancelled:  # in a thread, ask now and then
            time.sleep(0.05)
        Path("export.cancelled").write_text("in order\n")


async def main() -> None:
    async with Worker(concurrency=2):
        render, export = await dispatch(Render(film="intro")), await dispatch(Export())
        await asyncio.sleep(1)
        print(await cancel(render), await cancel(export))
        await asyncio.sleep(1)
        print(await cancel(export), "too late")
    await disconnect()


if __name__ == "__main__":
    asyncio.run(main())
