"""Limits of attempts: how long a job is retried, how often it may raise, and when it has expired."""

import asyncio
from datetime import timedelta

from outbox import Job, disconnect, dispatch

LOGINS_BY_CODE = True


class SendCode(Job):
    expires_after = 120  # seconds after the dispatch: a later code is of no use
    on_expired = "drop"  # the job is removed, and has not failed

    code: str

    def dispatch_if(self) -> bool:  # asked by each dispatch
        return LOGINS_BY_CODE and self.code != ""

    async def handle(self) -> None:
        print("code", self.code)


class PushOrder(Job):
    retry_until = timedelta(hours=6)  # by time, and not by number
    max_exceptions = 3  # `release` and `snooze` are none
    fail_on_timeout = True

    order_id: int

    async def handle(self) -> None:
        if self.order_id == 2:
            raise ConnectionError("the warehouse does not answer")
        print("order", self.order_id)


class AwaitPayment(Job):
    max_snoozes = 2

    order_id: int

    async def handle(self) -> None:
        self.context.snooze(0)  # not paid yet


async def main() -> None:
    await dispatch(SendCode(code="4711"))
    left_out = await dispatch(SendCode(code=""))
    print("made" if left_out.created else "left out")
    await dispatch(PushOrder(order_id=1))
    await dispatch(PushOrder(order_id=2), backoff=0, max_exceptions=2)
    await dispatch(AwaitPayment(order_id=1))
    await disconnect()


if __name__ == "__main__":
    asyncio.run(main())
