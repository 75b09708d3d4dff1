"""The receipt for an order, by e-mail."""

import logging

from app import mail, runlog
from app.db import snapshot, transaction
from app.models import Order, now
from outbox import Backoff, Job

log = logging.getLogger(__name__)


class SendReceipt(Job):
    """Mails the receipt and marks the order.

    A worker that dies between the two leaves an order that looks unsent, so the next run sends again:
    no queue can make e-mail exactly once. The Message-ID follows from the order, and mail programs
    drop the second copy.
    """

    name = "app.SendReceipt"
    queue = "mail"
    max_tries = 5
    timeout = 60
    backoff = Backoff([1, 5, 30], jitter=0.1)
    rate = mail.server

    order_id: int

    async def handle(self) -> None:
        with runlog.run(self):
            # No transaction is open while the mail server takes its time.
            async with snapshot() as session:
                order = await session.get(Order, self.order_id)
            if order is None:
                log.warning("order %d is gone: nothing to send", self.order_id)
            elif order.receipted_at is None:
                await self._send(order)

    async def _send(self, order: Order) -> None:
        try:
            await mail.send(mail.receipt(order))
        except mail.Refused as error:
            self.context.fail(error)  # the address will be no better in 30 seconds
            return
        await update_order(order.id, receipted_at=now(), receipt_problem=None)

    async def failed(self, error: BaseException) -> None:
        await update_order(self.order_id, receipt_problem=str(error)[:200])


async def update_order(order_id: int, **values: object) -> None:
    async with transaction() as session:
        order = await session.get(Order, order_id, with_for_update=True)
        if order is not None:
            for column, value in values.items():
                setattr(order, column, value)
