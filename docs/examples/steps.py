"""What a running job can decide, and how long it waits between attempts."""

from outbox import Job


class ImportOrder(Job):
    max_tries = 8

    order_id: int
    cancelled: bool = False

    def backoff(self, attempt: int) -> float:
        return 10 * attempt

    async def handle(self) -> None:
        context = self.context
        too_early = self.order_id > 1_000_000
        hopeless = self.order_id < 0
        obsolete = self.cancelled

        if too_early:
            context.release(60)  # again in a minute; the attempt counts
            context.snooze(60)  # again in a minute; the attempt does not count
        if hopeless:
            context.fail("no such order")  # to the failed jobs, whatever attempts are left
        if obsolete:
            context.delete()  # gone, neither success nor failure
