"""Mistakes that type checkers must find, one in every line that says so."""

from __future__ import annotations

import outbox.sync
from outbox import Job, dispatch


class SendReceipt(Job):
    order_id: int

    async def handle(self) -> None: ...


class Wrong(Job):
    queue = 5  # mistake
    priority = "high"  # mistake
    max_tries = "five"  # mistake
    timeout = "soon"  # mistake


SendReceipt()  # mistake
SendReceipt(1)  # mistake
SendReceipt(order_id="one")  # mistake
SendReceipt(order_id=1, orderid=2)  # mistake
SendReceipt(order_id=1, queue="mail")  # mistake
SendReceipt(order_id=1).context.attempts  # mistake  # noqa: B018


async def wrong() -> None:
    await dispatch(SendReceipt)  # mistake
    await dispatch(SendReceipt(order_id=1), delay="soon")  # mistake
    await dispatch(SendReceipt(order_id=1), qeue="mail")  # mistake
    outbox.sync.dispatch(SendReceipt(order_id=1), qeue="mail")  # mistake
    outbox.sync.dispatch([SendReceipt(order_id=1)])  # mistake
