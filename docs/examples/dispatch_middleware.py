"""Middleware of dispatches and shipped middleware of jobs: a tenant travels with its jobs."""

import asyncio
from contextvars import ContextVar
from pathlib import Path

from outbox import CallNextDispatch, Job, configure, context_variables, disconnect, dispatch, skip_if

tenant: ContextVar[str] = ContextVar("tenant", default="")


class TenantJob(Job):
    middleware = [skip_if(lambda job: job.tenant == "closed"), context_variables({tenant: "tenant"})]

    tenant: str = ""


class Invoice(TenantJob):
    number: int

    def handle(self) -> None:
        with Path("invoices.log").open("a") as log:
            log.write(f"invoice {self.number} for {tenant.get()}\n")


def with_tenant(job: Job, call_next: CallNextDispatch) -> Job:
    if isinstance(job, TenantJob):
        if not tenant.get():
            raise PermissionError(f"{job.name} is dispatched without a tenant")
        job = job.model_copy(update={"tenant": tenant.get()})
    return call_next(job)


async def main() -> None:
    configure(dispatch_middleware=[with_tenant])
    for number, name in enumerate(("acme", "closed"), 1):
        tenant.set(name)
        await dispatch(Invoice(number=number))
    tenant.set("")
    try:
        await dispatch(Invoice(number=3))
    except PermissionError as error:
        print(f"refused: {error}")
    await disconnect()


if __name__ == "__main__":
    asyncio.run(main())
