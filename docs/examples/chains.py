"""Jobs that run one after the other."""

import asyncio

from shop import Session, engine

from outbox import Job, dispatch_chain


class FetchPrices(Job):
    supplier: str

    async def handle(self) -> dict[str, int]:
        return {"tea": 450, "coffee": 700}


class CheckPrices(Job):
    async def handle(self) -> dict[str, int]:
        prices: dict[str, int] = self.context.previous
        if max(prices.values()) > 500:
            self.context.chain.prepend(AskForApproval())
        return prices


class AskForApproval(Job):
    async def handle(self) -> dict[str, int]:
        prices: dict[str, int] = self.context.previous
        print(f"{len(prices)} prices need a look")
        return prices


class StorePrices(Job):
    async def handle(self) -> None:
        print(f"stored {sorted(self.context.previous)}")


class ReportFailure(Job):
    async def handle(self) -> None:
        print(f"{self.context.previous['name']} failed: {self.context.previous['error']}")


async def update_prices(supplier: str) -> None:
    async with Session() as session, session.begin():
        steps = [FetchPrices(supplier=supplier), CheckPrices(), StorePrices()]
        await dispatch_chain(steps, catch=ReportFailure(), session=session)


async def main() -> None:
    await update_prices("tea-and-more")
    await engine.dispose()


if __name__ == "__main__":
    asyncio.run(main())
