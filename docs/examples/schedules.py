"""Jobs by the clock: declared in code, and added for each tenant."""

import asyncio

from receipts import SendReceipt
from shop import Session

from outbox import Job, schedule, schedules


@schedule("0 7 * * mon-fri", tz="Europe/Berlin", misfire="once", grace=3600, overlap="skip", jitter=30)
class MorningReport(Job):
    async def handle(self) -> None:
        since = self.context.previous_tick  # None the first time
        print(f"orders from {since} to {self.context.tick}")


@schedule(every="90s")
class CheckStock(Job):
    async def handle(self) -> None: ...


async def main() -> None:
    async with Session() as session, session.begin():
        await schedules.add("digest:7", "@daily", SendReceipt(order_id=7), session=session)  # commits with the tenant
    await schedules.pause("digest:7")
    await schedules.resume("digest:7")
    await schedules.remove("digest:7")


if __name__ == "__main__":
    asyncio.run(main())
