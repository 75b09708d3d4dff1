"""Events: the documented table, who tells each of them, and listeners that raise or block."""

from __future__ import annotations

import ast
import asyncio
import re
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

import outbox.events
from outbox import (
    Batch,
    Job,
    Outbox,
    bulk,
    cancel,
    cancel_batch,
    dispatch,
    dispatch_batch,
    dispatch_chain,
    retry,
    schedules,
)
from outbox.drivers.database import DatabaseDriver
from outbox.drivers.values import PolicyNews
from outbox.errors import ConfigurationError
from outbox.events import (
    BatchDispatched,
    BatchEnded,
    BulkOperationEnded,
    BulkOperationStarted,
    ChainAdvanced,
    ChainDispatched,
    ChainEnded,
    Event,
    HookFailed,
    JobCancelled,
    JobDispatched,
    JobEvent,
    JobSettled,
    JobSkipped,
    JobStarted,
    KeyBlocked,
    KeyUnblocked,
    ScheduleChanged,
    ScheduleSkipped,
    ScheduleTicked,
    WorkerStarted,
    WorkerStopped,
    WorkerStopping,
)
from outbox.ids import new_job_id
from outbox.settlement import Outcome
from tests.conformance.jobs import envelopes
from tests.support.orders import async_engine

ROOT = Path(__file__).parents[3]
TABLE = re.compile(r"^\| `(\w+)` \| (.+?) \| (.+?) \|$", re.MULTILINE)
TIMEOUT = 20.0

TOLD_IN = {
    "JobDispatched": {"dispatch/observers.py"},
    "JobStarted": {"middleware/started.py"},
    "JobSettled": {"runtime/completer.py", "inline.py"},
    "JobSkipped": {"drivers/database/jobs/admission.py", "middleware/deadlines.py"},
    "JobCancelled": {"runtime/completer.py", "runtime/consumer.py"},
    "JobGivenBack": {"runtime/execution/executor.py"},
    "JobOverdue": {"runtime/execution/executor.py"},
    "LeaseLost": {"runtime/completer.py", "runtime/consumer.py"},
    "HookFailed": {"runtime/execution/failed_hook.py"},
    "ResourceFailed": {"runtime/execution/resource_cleanup.py"},
    "SettlementRefused": {"runtime/completer.py"},
    "SettlementPostponed": {"runtime/postponed_settlements.py"},
    "SettlementsAbandoned": {"runtime/completer.py"},
    "KeyBlocked": {"drivers/database/policies/keys.py"},
    "KeyUnblocked": {"drivers/database/policies/key_operations.py"},
    "Paused": {"pausing.py"},
    "Resumed": {"pausing.py", "drivers/database/pauses/store.py"},
    "CircuitOpened": {"middleware/throttle_exceptions.py"},
    "CircuitClosed": {"middleware/throttle_exceptions.py"},
    "BulkOperationStarted": {"drivers/database/bulk/portion.py"},
    "BulkOperationEnded": {"drivers/database/bulk/portion.py", "drivers/database/bulk/store.py"},
    "ChainDispatched": {"chains.py"},
    "ChainAdvanced": {"runtime/completer.py"},
    "ChainEnded": {"runtime/completer.py"},
    "BatchDispatched": {"batching.py"},
    "BatchEnded": {"drivers/database/policies/batch_end.py"},
    "ScheduleChanged": {"schedules.py"},
    "ScheduleTicked": {"drivers/database/schedules/ticking.py"},
    "ScheduleSkipped": {"drivers/database/schedules/ticking.py"},
    "WorkerStarted": {"runtime/reporting/worker_reports.py"},
    "HealthPortOpened": {"health_port.py"},
    "WorkerPaused": {"runtime/worker_control.py"},
    "WorkerResumed": {"runtime/worker_control.py"},
    "WorkerStopping": {"runtime/reporting/worker_reports.py"},
    "WorkerStopped": {"runtime/reporting/worker_reports.py"},
    "WorkerKilled": {"runtime/reporting/worker_reports.py", "runtime/process/watchdog.py"},
    "LoopBlocked": {"runtime/process/watchdog.py"},
    "ProcessAltered": {"runtime/process/process_state.py"},
    "LogLinesDropped": {"runtime/reporting/logs.py"},
    "SignalIgnored": {"runtime/process/supervisor.py", "runtime/process/worker_process.py"},
    "ProcessStarted": {"runtime/process/supervisor.py"},
    "ProcessEnded": {"runtime/process/supervisor.py"},
    "SourcesChanged": {"runtime/process/reload.py"},
    "ConnectionDown": {"runtime/availability.py"},
    "ConnectionUp": {"runtime/availability.py"},
    "WakeupsUnheard": {"wakeups/selector.py"},
    "WakeupsHeard": {"wakeups/selector.py"},
}
"""The modules that make each event."""


def documented() -> dict[str, str]:
    """The events of the table, and who tells each."""
    return {name: told_by for name, told_by, _ in TABLE.findall((ROOT / "docs" / "events.md").read_text())}


def classes() -> Iterator[str]:
    for name, value in vars(outbox.events).items():
        if isinstance(value, type) and issubclass(value, Event) and value not in (Event, JobEvent):
            yield name


def makers() -> dict[str, set[str]]:
    """The modules in which each event is made: called, or handed on as a class to be called."""
    found: dict[str, set[str]] = {name: set() for name in classes()}
    for file in (ROOT / "outbox").rglob("*.py"):
        tree = ast.parse(file.read_text())
        imported = {
            each.asname or each.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module == "outbox.events"
            for each in node.names
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                called = node.func.attr if isinstance(node.func, ast.Attribute) else ""
                names = [node.func]
                if called == "event" or (isinstance(node.func, ast.Name) and node.func.id == "partial"):
                    names += node.args[:1]
                for name in names:
                    if isinstance(name, ast.Name) and name.id in imported and name.id in found:
                        found[name.id].add(str(file.relative_to(ROOT / "outbox")))
    return found


def test_the_table_has_every_event() -> None:
    assert set(documented()) == set(classes()) == set(TOLD_IN)


def test_each_event_is_made_where_the_table_says() -> None:
    assert makers() == TOLD_IN
    told_by = documented()
    for name, modules in TOLD_IN.items():
        for module in modules:
            if "client" not in told_by[name]:
                assert module.startswith(("runtime/", "middleware/", "wakeups/", "drivers/", "health_port")), name
            if told_by[name] == "the supervisor":
                assert module in ("runtime/process/supervisor.py", "runtime/process/reload.py"), name


def test_events_of_several_kinds_reach_who_listens_for_one() -> None:
    heard: list[Event] = []
    events = outbox.events.Events()
    events.listen(heard.append, KeyBlocked)
    job_id = new_job_id()
    events.emit_each([KeyUnblocked("a", job_id), KeyBlocked("b", job_id), KeyUnblocked("c", job_id)])
    assert heard == [KeyBlocked("b", job_id)]


class Step(Job):
    name = "tests.events.Step"
    max_tries = 1

    fails: bool = False
    waits: bool = False

    async def handle(self) -> None:
        if self.waits:
            await asyncio.Event().wait()
        if self.fails and not healed:
            raise ValueError("no luck")


class Hooked(Job):
    name = "tests.events.Hooked"
    max_tries = 1

    async def handle(self) -> None:
        raise ValueError("no luck")

    async def failed(self, error: BaseException) -> None:
        raise RuntimeError("nor here")


class Ordered(Step):
    name = "tests.events.Ordered"
    ordering_key = "key"

    key: str = "a"


class Alone(Step):
    name = "tests.events.Alone"
    concurrency_key = "key"
    on_full = "skip"

    key: str = "a"


healed: list[bool] = []


class Heard:
    """A listener, and a test that waits for what it hears."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        self._loop.call_soon_threadsafe(self._changed.set)

    def of(self, kind: type[Event], **values: Any) -> list[Any]:
        return [
            event
            for event in self.events
            if isinstance(event, kind) and all(getattr(event, name) == value for name, value in values.items())
        ]

    async def event(self, kind: type[Event], **values: Any) -> Any:
        async with asyncio.timeout(TIMEOUT):
            while not self.of(kind, **values):
                self._changed.clear()
                await self._changed.wait()
        return self.of(kind, **values)[0]


@pytest.fixture
async def client(migrated_url: str) -> AsyncIterator[Outbox]:
    healed.clear()
    async with Outbox(DATABASE_URL=migrated_url) as client:
        yield client


@pytest.fixture
async def heard(client: Outbox) -> Heard:
    heard = Heard()
    client.listen(heard)
    return heard


async def test_the_life_of_jobs_and_of_a_worker(client: Outbox, heard: Heard) -> None:
    async with client.worker(sleep=0.1, lease=10):
        await heard.event(WorkerStarted)
        job_id = await dispatch(Step())
        assert not (await heard.event(JobDispatched, job_id=job_id)).in_session
        begun = await heard.event(JobStarted, job_id=job_id)
        assert (begun.attempt, 0 <= begun.waited < 20) == (1, True)
        assert (await heard.event(JobSettled, job_id=job_id)).outcome is Outcome.COMPLETED
        job_id = await dispatch(Hooked())
        assert (await heard.event(HookFailed, job_id=job_id)).failure.message == "nor here"
        first = await dispatch(Alone(waits=True))
        await heard.event(JobStarted, job_id=first)
        second = await dispatch(Alone())
        await heard.event(JobSkipped, job_id=second)
        assert await cancel(first)
        await heard.event(JobCancelled, job_id=first)
    await heard.event(WorkerStopping)
    assert (await heard.event(WorkerStopped)).processed >= 2
    assert heard.events[0] == heard.of(WorkerStarted)[0]


async def test_the_life_of_a_key(client: Outbox, heard: Heard, database: DatabaseDriver) -> None:
    async with client.worker(sleep=0.1):
        job_id = await dispatch(Ordered(fails=True))
        assert await heard.event(KeyBlocked) == KeyBlocked("key:a", job_id)
        waiting = await dispatch(Ordered())
        healed.append(True)
        assert await retry(job_id)
        assert await heard.event(KeyUnblocked) == KeyUnblocked("key:a", job_id)
        await heard.event(JobSettled, job_id=waiting)
        assert len(heard.of(KeyUnblocked)) == 1
        healed.clear()
        other = await dispatch(Ordered(fails=True, key="b"))
        await heard.event(KeyBlocked, key="key:b")
    news: list[PolicyNews] = []
    database.policies.on_news = news.append
    assert await database.policies.skip_failed([other, job_id]) == [other]
    assert [each.events for each in news] == [(KeyUnblocked("key:b", other),)]


async def test_the_life_of_a_bulk_operation(client: Outbox, heard: Heard, database: DatabaseDriver) -> None:
    await database.jobs.insert(envelopes(1_200, queue="mail"))
    async with client.worker(sleep=0.1):
        await heard.event(WorkerStarted)
        made = await bulk.start("cancel", queue="mail", by="anna")
        assert await heard.event(BulkOperationStarted) == BulkOperationStarted(made.id, "cancel", "anna", 1_200)
        ended = await heard.event(BulkOperationEnded)
        assert ended == BulkOperationEnded(made.id, "cancel", "anna", 1_200, 0, stopped=False)
    stopped = await bulk.start("cancel", queue="mail")
    assert await bulk.stop(stopped.id)
    assert (await heard.event(BulkOperationEnded, stopped=True)).operation_id == stopped.id


async def test_the_life_of_a_chain(client: Outbox, heard: Heard) -> None:
    async with client.worker(sleep=0.1):
        chain = await dispatch_chain([Step(), Step(fails=True), Step()], catch=Step())
        assert await heard.event(ChainDispatched) == ChainDispatched(chain, 3, in_session=False)
        advanced = await heard.event(ChainAdvanced)
        assert (advanced.chain_id, advanced.number, advanced.name) == (chain, 2, Step.name)
        assert await heard.event(ChainEnded) == ChainEnded(chain, 2, Outcome.FAILED)
        async with asyncio.timeout(TIMEOUT):
            while len(heard.of(JobSettled)) < 3:
                await asyncio.sleep(0.02)
        assert len(heard.of(ChainEnded)) == 1, "the end of `catch` is not one of the chain"
        healed.append(True)
        assert await retry(advanced.job_id)
        assert (await heard.event(ChainAdvanced, number=3)).chain_id == chain
        await heard.event(ChainEnded, number=3, outcome=Outcome.COMPLETED)


async def test_the_life_of_batches(client: Outbox, heard: Heard) -> None:
    async with client.worker(sleep=0.1):
        outer = await dispatch_batch([Step(), Batch([Step(fails=True)], name="inner")], name="outer", allow_failures=1)
        assert await heard.event(BatchDispatched) == BatchDispatched(outer, "outer", 2, in_session=False)
        inner = await heard.event(BatchEnded, name="inner")
        assert (inner.state, inner.total, inner.failed) == ("failed", 1, 1)
        assert await heard.event(BatchEnded, name="outer") == BatchEnded(outer, "outer", "finished", 2, 1)
    cancelled = await dispatch_batch([Step()], name="cancelled")
    assert await cancel_batch(cancelled)
    assert await heard.event(BatchEnded, name="cancelled") == BatchEnded(cancelled, "cancelled", "cancelled", 1, 0)


async def test_the_life_of_a_schedule(client: Outbox, heard: Heard, migrated_url: str) -> None:
    await schedules.add("clean", None, Step(waits=True), every="1s", overlap="skip")
    assert await heard.event(ScheduleChanged) == ScheduleChanged("clean", "added", in_session=False)
    async with client.worker(sleep=0.1, grace=0):
        assert (await heard.event(ScheduleTicked)).schedule == "clean"
        assert "not finished" in (await heard.event(ScheduleSkipped)).reason
    engine = async_engine(migrated_url)
    async with AsyncSession(engine) as session, session.begin():
        await schedules.pause("clean", session=session)
        await schedules.resume("clean", session=session)
        await schedules.add("clean", "@daily", Step(), session=session)
    await engine.dispose()
    await schedules.remove("clean")
    assert not await schedules.remove("clean")
    await heard.event(ScheduleChanged, change="removed")
    assert [(each.change, each.in_session) for each in heard.of(ScheduleChanged)] == [
        ("added", False), ("paused", True), ("resumed", True), ("changed", True), ("removed", False),
    ]  # fmt: skip


@pytest.mark.parametrize("error", [RuntimeError, SystemExit, KeyboardInterrupt, asyncio.CancelledError])
async def test_a_listener_that_raises_breaks_nothing(
    client: Outbox, error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    def broken(event: Event) -> None:
        raise error("telemetry is down")

    client.listen(broken)
    heard = Heard()
    client.listen(heard)
    async with client.worker(sleep=0.1):
        for _ in range(3):
            job_id = await dispatch(Step())
            await heard.event(JobSettled, job_id=job_id, outcome=Outcome.COMPLETED)
    await client.close()
    assert caplog.text.count("a listener failed on JobSettled") == 3


async def heard_nowhere(event: Event) -> None: ...


class HeardNowhere:
    async def __call__(self, event: Event) -> None: ...


@pytest.mark.parametrize(
    ("listener", "kinds", "message"),
    [
        (heard_nowhere, (), "heard_nowhere is async def"),
        (HeardNowhere(), (), "is async def"),
        (None, (), "a function of an event, not None"),
        (print, ("JobSettled",), "and 'JobSettled' is none"),
        (print, (Outcome,), "and <enum 'Outcome'> is none"),
    ],
)
def test_a_listener_that_would_hear_nothing_is_refused(listener: Any, kinds: tuple[Any, ...], message: str) -> None:
    client = Outbox(database_url="sqlite+aiosqlite:///unused.db")
    with pytest.raises(ConfigurationError, match=message):
        client.listen(listener, *kinds)


async def test_a_listener_that_blocks_slows_no_job(client: Outbox) -> None:
    go, blocked = threading.Event(), threading.Event()

    def blocks(event: Event) -> None:
        blocked.set()
        assert go.wait(TIMEOUT)

    client.listen(blocks)
    try:
        async with client.worker(sleep=0.1), asyncio.timeout(TIMEOUT):
            await outbox.dispatch_many([Step() for _ in range(50)])
            assert await asyncio.to_thread(blocked.wait, TIMEOUT)
            while any(counts.ready or counts.reserved for counts in await outbox.counts()):
                await asyncio.sleep(0.02)
            assert not go.is_set(), "all jobs have ended while the listener waits"
    finally:
        go.set()
