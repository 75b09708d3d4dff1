"""Jobs that run in any order, and what follows when all of them have ended."""

import asyncio

from chains import CheckPrices, FetchPrices, StorePrices
from shop import Session, engine

from outbox import Job, dispatch_batch


class SendPriceList(Job):
    async def handle(self) -> None:
        print("the price list is complete")


class CleanUp(Job):
    async def handle(self) -> None:
        print("cleaned up")


async def check_suppliers(suppliers: list[str]) -> None:
    async with Session() as session, session.begin():
        await dispatch_batch(
            [FetchPrices(supplier=name) for name in suppliers],
            name="prices",
            then=SendPriceList(),
            finally_=CleanUp(),
            allow_failures="5%",
            session=session,
        )


async def update_suppliers(suppliers: list[str]) -> None:
    chains = [[FetchPrices(supplier=name), CheckPrices(), StorePrices()] for name in suppliers]
    await dispatch_batch(chains, name="updates", then=SendPriceList())


async def main() -> None:
    await check_suppliers(["tea-and-more", "bean-house"])
    await update_suppliers(["tea-and-more", "bean-house"])
    await engine.dispose()


if __name__ == "__main__":
    asyncio.run(main())
