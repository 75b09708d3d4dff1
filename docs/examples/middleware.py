"""Middleware: what surrounds the handlers of jobs."""

from contextvars import ContextVar
from pathlib import Path
from typing import Any

import outbox

tenant: ContextVar[str] = ContextVar("tenant", default="")


# shop/middleware.py: `--middleware shop.middleware:log_job` runs it around every job
async def log_job(job: outbox.Job, call_next: outbox.CallNext) -> Any:
    try:
        return await call_next(job)
    finally:
        print(f"{job.name} attempt {job.context.attempt} is over")


async def as_tenant(job: "TenantReport", call_next: outbox.CallNext) -> Any:
    tenant.set(job.tenant)
    return await call_next(job)


class TenantReport(outbox.Job):
    middleware = [as_tenant]

    tenant: str

    def handle(self) -> None:
        Path("report.log").write_text(f"for {tenant.get()}\n")
