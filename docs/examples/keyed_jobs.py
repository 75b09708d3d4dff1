"""Jobs with keys: limits, order and turns. `python keyed_jobs.py` dispatches some."""

import asyncio
from pathlib import Path

from outbox import Job, dispatch, dispatch_many


class ChargeCard(Job):
    concurrency_key = "customer_id"  # a field, or a method
    concurrency_limit = 2  # across all workers
    on_full = "wait"  # "wait" | "skip" | "replace_running"

    customer_id: int

    async def handle(self) -> None:
        note(f"charged {self.customer_id}")


class ApplyEvent(Job):
    ordering_key = "aggregate_id"  # one at a time, in the order of dispatch
    on_failed = "block"  # "block" | "skip"

    aggregate_id: int
    event: str

    async def handle(self) -> None:
        note(f"{self.aggregate_id} {self.event}")


class ImportFile(Job):
    fair_weight = 1

    tenant: str
    file: str

    def fair_key(self) -> str | None:  # None: this job waits for no turn
        return self.tenant.lower()

    async def handle(self) -> None:
        note(f"imported {self.file}")


def note(line: str) -> None:
    with Path("keyed.log").open("a") as file:
        file.write(f"{line}\n")


async def main() -> None:
    await dispatch_many([ApplyEvent(aggregate_id=7, event=event) for event in ("placed", "paid", "sent")])
    await dispatch_many([ImportFile(tenant="A", file=f"{number}.csv") for number in range(30)])
    await dispatch(ImportFile(tenant="B", file="b.csv"))
    await dispatch(ChargeCard(customer_id=7), concurrency_limit=1)


if __name__ == "__main__":
    asyncio.run(main())
