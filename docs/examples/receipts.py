"""A job that sends a receipt, and one that makes a report."""

import asyncio
from pathlib import Path

from outbox import Job


class SendReceipt(Job):
    queue = "mail"
    max_tries = 5
    timeout = 60  # seconds, per attempt
    backoff = [1, 5, 30]  # seconds between attempts; the last one repeats

    order_id: int

    async def handle(self) -> None:  # a plain `def handle` runs in a thread
        await send_mail(self.order_id)

    async def failed(self, error: BaseException) -> None: ...  # once, after the last attempt


async def send_mail(order_id: int) -> None:
    """Stands in for a mail server: one line a receipt."""
    await asyncio.to_thread(append, f"receipt for order {order_id}\n")


def append(line: str) -> None:
    with Path("mail.log").open("a") as file:
        file.write(line)
