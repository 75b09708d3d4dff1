"""The metrics of `outbox.contrib.prometheus`, read as Prometheus reads them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

import outbox
from outbox import Job, JobId, Outbox, Settings
from outbox.contrib.prometheus import JobMetrics, ProcessPages, WorkerMetrics, instrument
from outbox.contrib.prometheus.store_metrics import Reading, StoreMetrics, read
from outbox.drivers.base import Driver
from outbox.drivers.values import QueueCounts, WorkerStatus
from outbox.envelope import serialize
from outbox.events import Event, Events, JobDispatched, JobSettled, JobStarted, LeaseLost
from outbox.ids import new_job_id
from outbox.options import JobOptions
from outbox.runtime.worker import Worker
from outbox.settings import WorkerOptions
from outbox.settlement import Failure, Outcome, Settlement
from tests.unit.runtime.memory import MemoryDriver, Store

DEPLOY = Path(__file__).parents[2] / "deploy"

NAMES = {
    "outbox_jobs_dispatched_total",
    "outbox_jobs_settled_total",
    "outbox_job_run_seconds",
    "outbox_job_wait_seconds",
    "outbox_queue_jobs",
    "outbox_queue_oldest_seconds",
    "outbox_queue_clear_seconds",
    "outbox_workers",
    "outbox_slots",
    "outbox_leases_lost_total",
    "outbox_relay_pending",
    "outbox_keys_blocked",
    "outbox_schedule_late_seconds",
}
"""Dashboards and alerts of others name them."""


class Told(Job):
    queue = "mail"
    number: int = 0

    async def handle(self) -> None: ...


class Ordered(Job):
    ordering_key = "customer"
    customer: str

    async def handle(self) -> None: ...


def samples(page: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def value(page: str, name: str, **labels: str) -> float:
    return samples(page)[name, tuple(sorted(labels.items()))]


def names(page: str) -> set[str]:
    """As they are declared: of a histogram without what its series add."""
    return set(re.findall(r"^# TYPE (\S+)", page, re.MULTILINE))


def started(job_id: JobId, attempt: int = 1, name: str = Told.name) -> JobStarted:
    return JobStarted(job_id, name, "mail", "database", attempt)


def settled(outcome: Outcome, seconds: float, name: str = Told.name) -> JobSettled:
    return JobSettled(new_job_id(), name, "mail", "database", 1, outcome, seconds)


def page_of(*events: Event) -> str:
    registry = CollectorRegistry()
    metrics = JobMetrics(registry)
    for event in events:
        metrics.record(event)
    return generate_latest(registry).decode()


def test_events_are_counted() -> None:
    job_id = new_job_id()
    page = page_of(
        JobDispatched(job_id, Told.name, "mail", "database", True),
        started(job_id),
        started(job_id, attempt=2),
        settled(Outcome.RETRIED, 0.02),
        settled(Outcome.COMPLETED, 2.0),
        settled(Outcome.SNOOZED, 0.0),
        LeaseLost(job_id, Told.name, "mail", "database", 1, "frozen"),
    )
    of_job = {"queue": "mail", "job": Told.name}
    assert value(page, "outbox_jobs_dispatched_total", **of_job) == 1
    assert value(page, "outbox_jobs_settled_total", **of_job, outcome="completed") == 1
    assert value(page, "outbox_jobs_settled_total", **of_job, outcome="retried") == 1
    assert value(page, "outbox_job_run_seconds_count", **of_job) == 2, "what has not run is no run"
    assert value(page, "outbox_job_run_seconds_sum", **of_job) == 2.02
    assert value(page, "outbox_job_run_seconds_bucket", **of_job, le="0.025") == 1
    assert value(page, "outbox_job_wait_seconds_count", **of_job) == 1, "the first attempt ends the wait"
    assert value(page, "outbox_job_wait_seconds_sum", **of_job) < 5
    assert value(page, "outbox_leases_lost_total", queue="mail") == 1


def test_a_wait_is_that_of_the_store_where_it_tells() -> None:
    """The id was made an hour ago, by another clock."""
    made = JobId(int=(int(time.time() - 3_600) * 1_000 << 80) | 1)
    page = page_of(JobStarted(made, Told.name, "mail", "database", 1, waited=7.0))
    assert value(page, "outbox_job_wait_seconds_sum", queue="mail", job=Told.name) == 7.0
    page = page_of(started(made))
    assert 3_600 <= value(page, "outbox_job_wait_seconds_sum", queue="mail", job=Told.name) < 3_700


def test_labels_hold_no_ids_and_no_names_that_rows_make_up() -> None:
    page = page_of(*(settled(Outcome.FAILED, 0.1, name=f"made.up.{number}") for number in range(50)))
    assert value(page, "outbox_jobs_settled_total", queue="mail", job="(unknown)", outcome="failed") == 50
    assert {label for _, labels in samples(page) for label, _ in labels} == {"queue", "job", "outcome", "le"}
    assert "_created" not in page


def test_a_registry_takes_them_once() -> None:
    registry = CollectorRegistry()
    JobMetrics(registry)
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        JobMetrics(registry)


async def test_an_application_counts_its_dispatches(migrated_url: str) -> None:
    registry = CollectorRegistry()
    async with Outbox(Settings(database_url=migrated_url)) as client:
        instrument(registry, client=client)
        await client.dispatch_many([Told(), Told()])
    page = generate_latest(registry).decode()
    assert value(page, "outbox_jobs_dispatched_total", queue="mail", job=Told.name) == 2


async def test_an_embedded_worker_is_counted_as_well(migrated_url: str) -> None:
    registry = CollectorRegistry()
    async with Outbox(Settings(database_url=migrated_url)) as client:
        instrument(registry, client=client)
        await client.dispatch(Told())
        async with client.worker(queue="mail", stop_when_empty=True, sleep=0.02) as worker:
            await worker.wait()
    page = generate_latest(registry).decode()
    assert value(page, "outbox_jobs_settled_total", queue="mail", job=Told.name, outcome="completed") == 1


ON_EVERY_STORE = pytest.mark.parametrize(
    "backend",
    [
        pytest.param("sqlite", marks=pytest.mark.sqlite),
        pytest.param("mysql", marks=pytest.mark.mysql),
        pytest.param("mariadb", marks=pytest.mark.mariadb),
        pytest.param("redis", marks=pytest.mark.redis),
    ],
)


def page_of_store(*readings: Reading, mean_run: float | None = None) -> str:
    future: Future[list[Reading]] = Future()
    future.set_result(list(readings))
    registry = CollectorRegistry()
    registry.register(StoreMetrics(lambda: future, lambda _: mean_run))
    return generate_latest(registry).decode()


@ON_EVERY_STORE
async def test_a_store_is_read(driver: Driver) -> None:
    await driver.jobs.insert([serialize(Told(number=number)) for number in range(3)])
    await driver.jobs.insert([serialize(Told(), JobOptions(delay=60))])
    await driver.workers.heartbeat(WorkerStatus(b"w" * 16, "w1", "host", 1, "mail,default", 20, 0, 0, 0))
    (claim,) = await driver.jobs.claim(["mail"], 1, 30)
    await driver.jobs.settle([Settlement.failed(claim.fence, Failure("E", "m", ""))])
    await driver.jobs.claim(["mail"], 1, 30)
    page = page_of_store(await read(driver), mean_run=2.0)
    states = {state: value(page, "outbox_queue_jobs", queue="mail", state=state) for state in ("ready", "reserved")}
    assert states == {"ready": 1, "reserved": 1}
    assert value(page, "outbox_queue_jobs", queue="mail", state="delayed") == 1
    assert value(page, "outbox_queue_jobs", queue="mail", state="failed") == 1
    assert 0 <= value(page, "outbox_queue_oldest_seconds", queue="mail") < 60
    assert value(page, "outbox_queue_clear_seconds", queue="mail") == 0.1, "1 job of 2 s in 20 slots"
    assert value(page, "outbox_workers") == 1


@pytest.mark.sqlite
@pytest.mark.parametrize("backend", ["sqlite"])
async def test_blocked_keys_late_schedules_and_the_relay_are_read(driver: Driver, migrated_url: str) -> None:
    async with Outbox(Settings(database_url=migrated_url, redis_url="redis://127.0.0.1:1/0")) as client:
        await client.dispatch(Ordered(customer="7"))
    (claim,) = await driver.jobs.claim(["default"], 1, 30)
    await driver.jobs.settle(
        [Settlement.failed(claim.fence, Failure("E", "m", "")).leaving(claim.policies or 0, claim.headers)]
    )
    reading = await read(driver)
    assert reading.blocked_keys == 1
    assert reading.late == 0.0
    page = page_of_store(
        Reading([QueueCounts(">redis", 2, 5, 1, 0, 1.0, False)], blocked_keys=1, late=7.0), Reading(late=None)
    )
    assert value(page, "outbox_relay_pending") == 3
    assert value(page, "outbox_keys_blocked") == 1
    assert value(page, "outbox_schedule_late_seconds") == 7
    assert "redis" not in " ".join(name for name, _ in samples(page)), "rows of the relay are no queue"


def counts(queue: str, ready: int) -> Reading:
    return Reading([QueueCounts(queue, ready, 0, 0, 0, None, False)])


@pytest.mark.parametrize(
    ("ready", "concurrency", "mean_run", "seconds"),
    [(0, 0, None, 0.0), (5, 0, 1.0, float("inf")), (40, 20, 0.5, 1.0), (40, 20, None, None)],
)
def test_the_time_to_clear_a_queue(ready: int, concurrency: int, mean_run: float | None, seconds: float | None) -> None:
    reading = counts("mail", ready)
    if concurrency:
        reading.workers = [
            WorkerStatus(b"a" * 16, "w1", "host", 1, "mail", concurrency, 0, 0, 0),
            WorkerStatus(b"b" * 16, "gone", "host", 2, "mail", 100, 0, 0, 0, seen=90.0),
            WorkerStatus(b"c" * 16, "other", "host", 3, "reports", 100, 0, 0, 0),
        ]
    page = page_of_store(reading, mean_run=mean_run)
    found = {name: sample for (name, _), sample in samples(page).items()}
    assert found.get("outbox_queue_clear_seconds") == seconds


def test_a_store_that_does_not_answer_leaves_its_gauges_out() -> None:
    answers: list[Future[list[Reading]]] = []

    def start() -> Future[list[Reading]]:
        answers.append(Future())
        if len(answers) == 1:
            answers[0].set_exception(outbox.OutboxError("gone"))
        else:
            raise RuntimeError("the worker has stopped")
        return answers[-1]

    registry = CollectorRegistry()
    registry.register(StoreMetrics(start, lambda _: None))
    assert names(generate_latest(registry).decode()) == set()


def test_scrapes_share_a_reading_that_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outbox.contrib.prometheus.store_metrics.COUNT_SECONDS", 0.05)
    begun: list[Future[list[Reading]]] = []

    def start() -> Future[list[Reading]]:
        begun.append(Future())
        return begun[-1]

    registry = CollectorRegistry()
    registry.register(StoreMetrics(start, lambda _: None))
    assert generate_latest(registry) == generate_latest(registry) == b""
    assert len(begun) == 1, "the second scrape waits for the same call"
    begun[0].set_result([counts("mail", 3)])
    assert value(generate_latest(registry).decode(), "outbox_queue_jobs", queue="mail", state="ready") == 3
    generate_latest(registry)
    assert len(begun) == 1, "the next reading is due later"


async def test_a_page_of_a_worker_has_every_metric() -> None:
    worker = Worker(WorkerOptions(), [MemoryDriver(Store())], Events(), name="w1")  # type: ignore[list-item]
    metrics = WorkerMetrics(worker)
    page = metrics.of_process() + page_of_store(Reading(late=0.0))
    assert metrics.of_store() == "", "before it has started, nothing is known"
    assert names(page) == NAMES
    assert value(page, "outbox_slots", state="free") == 20


def test_processes_are_added_up_and_those_that_ended_stay() -> None:
    one, two = page_of(settled(Outcome.COMPLETED, 1.0)), page_of(settled(Outcome.COMPLETED, 3.0), started(new_job_id()))
    slots = '# TYPE outbox_slots gauge\noutbox_slots{state="free"} 5.0\n'
    pages = ProcessPages()
    together = pages.add_up([one + slots, two + slots])
    of_job = {"queue": "mail", "job": Told.name}
    assert value(together, "outbox_jobs_settled_total", **of_job, outcome="completed") == 2
    assert value(together, "outbox_job_run_seconds_sum", **of_job) == 4
    assert value(together, "outbox_job_run_seconds_bucket", **of_job, le="1.0") == 1
    assert value(together, "outbox_slots", state="free") == 10
    pages.keep(one + slots)
    after = pages.add_up([two + slots])
    assert value(after, "outbox_jobs_settled_total", **of_job, outcome="completed") == 2
    assert value(after, "outbox_slots", state="free") == 5, "a gauge ends with its process"
    assert names(together) == names(one) | {"outbox_slots"}


def expressions(document: Any) -> Iterator[str]:
    if isinstance(document, dict):
        for key, each in document.items():
            if key in ("expr", "query", "definition") and isinstance(each, str):
                yield each
            else:
                yield from expressions(each)
    elif isinstance(document, list):
        for each in document:
            yield from expressions(each)


@pytest.mark.parametrize("file", ["grafana-dashboard.json", "prometheus-rules.yaml"])
def test_dashboard_and_alerts_name_metrics_that_there_are(file: str) -> None:
    document = yaml.safe_load((DEPLOY / file).read_text())
    found = {
        re.sub(r"_(bucket|sum|count)$", "", name)
        for expression in expressions(document)
        for name in re.findall(r"outbox_\w+", expression)
    }
    assert found <= NAMES
    if file.endswith(".json"):
        assert found == NAMES, "each metric has its panel"


def test_panels_do_not_overlap() -> None:
    panels = json.loads((DEPLOY / "grafana-dashboard.json").read_text())["panels"]
    cells: Sequence[tuple[int, int]] = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in panels}) == len(panels)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not here: install prometheus")
@pytest.mark.parametrize(
    "command", [["check", "rules", "prometheus-rules.yaml"], ["test", "rules", "prometheus-rules.test.yaml"]]
)
def test_promtool_takes_the_rules(command: list[str]) -> None:
    ran = subprocess.run(["promtool", *command], cwd=DEPLOY, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
