"""Hearing what happens to jobs, with a worker in the same process."""

import asyncio

from receipts import SendReceipt

from outbox import Outbox, dispatch_batch
from outbox.events import BatchEnded, Event, JobSettled


def note(event: Event) -> None:
    if isinstance(event, JobSettled):
        print(f"{event.name} {event.outcome}")
    if isinstance(event, BatchEnded):
        print(f"batch {event.name}: {event.state}, {event.failed} of {event.total} failed")


async def main() -> None:
    async with Outbox() as client:
        client.listen(note, JobSettled, BatchEnded)
        await dispatch_batch([SendReceipt(order_id=number) for number in range(2)], name="receipts")
        async with client.worker(queue="mail", stop_when_empty=True) as worker:
            await worker.wait()


if __name__ == "__main__":
    asyncio.run(main())
