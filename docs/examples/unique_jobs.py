"""Unique jobs: a customer is synced once, however many changes there were."""

import asyncio

from shop import Session, engine

from outbox import Job, JobId, disconnect, dispatch, dispatch_many
from outbox.errors import DuplicateJob


class SyncCustomer(Job):
    unique = ["customer_id"]  # True: all fields

    customer_id: int
    reason: str = ""

    async def handle(self) -> None: ...


class ImportFile(Job):
    path: str

    def unique_key(self) -> str:
        return self.path.lower()

    async def handle(self) -> None: ...


class PublishPrices(Job):
    unique = ["shop_id"]
    unique_until = "end"  # never two of a shop at once
    on_conflict = "replace"  # the newest prices win

    shop_id: int
    prices: dict[str, int]

    async def handle(self) -> None: ...


class IndexOrder(Job):
    unique = ["order_id"]
    debounce = 5  # seconds after the last change,
    max_wait = 60  # and at most 60 after the first

    order_id: int

    async def handle(self) -> None: ...


async def sync(customer_id: int) -> JobId:
    async with Session() as session, session.begin():
        receipt = await dispatch(SyncCustomer(customer_id=customer_id), session=session)
        print("made" if receipt.created else "met", "one job")
    return receipt


async def sync_strictly(customer_id: int) -> None:
    try:
        await dispatch(SyncCustomer(customer_id=customer_id), on_conflict="raise")
    except DuplicateJob as error:
        print("it waits already:", error.job_id is not None)


async def sync_all(customer_ids: list[int]) -> None:
    async with Session() as session, session.begin():
        await dispatch_many([SyncCustomer(customer_id=each) for each in customer_ids], session=session)


async def main() -> None:
    await sync(7)
    await sync(7)
    await sync_strictly(7)
    await sync_all([9, 8, 7])
    await dispatch(ImportFile(path="Orders.csv"))
    await dispatch(PublishPrices(shop_id=1, prices={"mug": 900}))
    await dispatch(PublishPrices(shop_id=1, prices={"mug": 950}))
    await dispatch(IndexOrder(order_id=1))
    await disconnect()
    await engine.dispose()


if __name__ == "__main__":
    asyncio.run(main())
