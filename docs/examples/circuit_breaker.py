"""A circuit breaker: while a service is down, jobs that need it wait."""

import asyncio

import outbox
from outbox import Job, throttle_exceptions


class ChargeCard(Job):
    middleware = [throttle_exceptions(max_exceptions=3, within=60, pause=300, on=ConnectionError)]
    max_tries = 20

    order_id: int

    async def handle(self) -> None:
        raise ConnectionError("the payment provider does not answer")


async def main() -> None:
    await outbox.dispatch_many([ChargeCard(order_id=number) for number in range(10)])
    await outbox.disconnect()


if __name__ == "__main__":
    asyncio.run(main())
