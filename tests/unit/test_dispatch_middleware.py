"""Middleware of dispatches, and the shipped middleware of jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, ClassVar

import pytest

import outbox
import outbox.sync
from outbox import CallNextDispatch, Job, Outbox, context_variables, skip_if
from outbox.errors import ConfigurationError, InvalidJob
from outbox.settings import Settings
from outbox.testing import fake, perform

tenant: ContextVar[str] = ContextVar("tenant", default="none")
seen: list[str] = []


class Report(Job):
    tenant: str = ""
    number: int = 0

    def handle(self) -> None: ...


def outer(job: Job, call_next: CallNextDispatch) -> Job:
    seen.append("outer")
    return call_next(job)


def with_tenant(job: Report, call_next: CallNextDispatch) -> Job:
    seen.append("tenant")
    return call_next(job.model_copy(update={"tenant": tenant.get()}))


async def awaiting(job: Report, call_next: Any) -> Any:
    seen.append("awaiting")
    return await call_next(job)


async def sleeping(job: Report, call_next: Any) -> Any:
    await asyncio.sleep(0)


def refuses(job: Report, call_next: CallNextDispatch) -> Job:
    if job.number == 2:
        raise PermissionError("not this one")
    return call_next(job)


def forgets(job: Report, call_next: CallNextDispatch) -> None:
    call_next(job)


def of_one(job: Report) -> None: ...


@pytest.fixture(autouse=True)
def _settings() -> Iterator[None]:
    seen.clear()
    yield
    outbox.configure()


async def test_each_job_passes_through_in_order() -> None:
    outbox.configure(dispatch_middleware=[outer, with_tenant, awaiting])
    tenant.set("acme")
    with fake() as dispatched:
        await outbox.dispatch(Report(number=1))
        await outbox.dispatch_chain([Report(number=2), Report(number=3)])
        outbox.sync.dispatch(Report(number=4))
        dispatched.assert_dispatched(Report, tenant="acme", number=1)
        dispatched.assert_dispatched(Report, tenant="acme", number=4)
        dispatched.assert_dispatched(Report, tenant="acme", number=2)
    assert seen == ["outer", "tenant", "awaiting"] * 4


async def test_what_a_middleware_raises_reaches_the_caller_and_nothing_is_written() -> None:
    outbox.configure(dispatch_middleware=[refuses])
    with fake() as dispatched:
        with pytest.raises(PermissionError, match="not this one"):
            await outbox.dispatch_many([Report(number=1), Report(number=2)])
        dispatched.assert_nothing_dispatched()


@pytest.mark.parametrize(
    ("middleware", "error", "message"),
    [
        (forgets, InvalidJob, "the dispatch middleware forgets returned None for .*Report: return what call_next"),
        (sleeping, ConfigurationError, "the dispatch middleware sleeping waits for something"),
        (of_one, ConfigurationError, r"dispatch_middleware: of_one is called with \(job, call_next\)"),
        ("nowhere", ConfigurationError, "dispatch_middleware 'nowhere' is not MODULE:FUNCTION"),
        (f"{__name__}:missing", ConfigurationError, "has no 'missing'"),
        (f"{__name__}:seen", ConfigurationError, "dispatch_middleware lists functions"),
    ],
)
async def test_a_middleware_that_cannot_work_is_said(middleware: Any, error: type[Exception], message: str) -> None:
    outbox.configure(dispatch_middleware=[middleware])
    with fake() as dispatched:
        with pytest.raises(error, match=message):
            await outbox.dispatch(Report())
        dispatched.assert_nothing_dispatched()


async def test_a_client_has_its_own_and_the_environment_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Outbox(dispatch_middleware=[with_tenant]):
        with fake():
            await outbox.dispatch(Report())
    assert seen == ["tenant"]
    monkeypatch.setenv("OUTBOX_DISPATCH_MIDDLEWARE", f"{__name__}:outer, {__name__}:with_tenant")
    assert Settings.load().dispatch_middleware == (f"{__name__}:outer", f"{__name__}:with_tenant")
    async with Outbox():
        with fake():
            await outbox.dispatch(Report())
    assert seen == ["tenant", "outer", "tenant"]


async def unwanted(job: Any) -> bool:
    return bool(job.number == 2)


class Surrounded(Job):
    middleware: ClassVar = [
        skip_if(lambda job: job.number == 1),
        skip_if(unwanted),
        context_variables({tenant: lambda job: f"tenant {job.number}"}),
    ]

    number: int

    def handle(self) -> None:
        seen.append(tenant.get())


class Lost(Job):
    middleware: ClassVar = [context_variables({tenant: "nothing"})]

    async def handle(self) -> None:
        seen.append("run")


async def test_jobs_are_skipped_and_context_variables_set() -> None:
    performed = [await perform(Surrounded(number=number)) for number in (1, 2, 3)]
    assert [(each.deleted, each.completed) for each in performed] == [(True, False), (True, False), (False, True)]
    assert seen == ["tenant 3"]
    assert tenant.get() == "none"


async def test_a_field_that_is_not_there_is_the_failure_of_the_attempt() -> None:
    performed = await perform(Lost(), max_tries=1)
    assert performed.failed
    assert isinstance(performed.error, AttributeError)
    assert seen == []


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: skip_if(True), "skip_if takes a function of the job, not True"),  # type: ignore[arg-type]
        (lambda: context_variables({"tenant": "tenant"}), "context_variables takes context variables"),  # type: ignore[dict-item]
        (lambda: context_variables({tenant: 7}), "context_variables takes context variables"),  # type: ignore[dict-item]
    ],
)
def test_what_is_shipped_refuses_wrong_arguments(make: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        make()
