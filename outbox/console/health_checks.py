"""The checks of `outbox check`: settings, jobs, and each connection from its server to its workers."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from functools import partial

from outbox import registry
from outbox.connections import all_connections, connection_settings, open_driver
from outbox.console.finding import Finding
from outbox.console.formatting import age, counted, one_line
from outbox.console.installation_check import check_installation
from outbox.console.version_checks import check_versions
from outbox.drivers.base import Driver
from outbox.drivers.filters import JobFilter
from outbox.drivers.pauses import Pause, PauseKind, terms_text
from outbox.drivers.values import SILENT_SECONDS, JobState, QueueCounts, WorkerStatus
from outbox.errors import ConfigurationError, OutboxError
from outbox.job import Job
from outbox.relay.route import relayed_connection
from outbox.settings import DATABASE, Settings, WorkerOptions, misspelt_variables

_JOBS_CHECKED = 500
"""Live jobs whose names are compared with the registered ones."""


async def run_checks(
    connection: str | None, given: Settings | None = None, *, for_page: bool = False
) -> AsyncGenerator[Finding, None]:
    """Yield the findings. Of the connections, check only ``connection`` if it is given. The settings are those
    ``given``, or those of the environment. ``for_page`` leaves out what writes, or reads a great part of the tables."""
    try:
        settings = given or Settings.load()
        WorkerOptions.load()
    except ConfigurationError as error:
        yield Finding.problem("settings", str(error))
        return
    yield Finding.ok("settings", f"jobs go to the connection {settings.connection}")
    for finding in check_installation():
        yield finding
    for variable, meant in misspelt_variables().items():
        yield Finding.warning("settings", f"nothing reads the variable {variable}", f"is {meant} meant?")
    for finding in _check_jobs(settings):
        yield finding
    for name in [connection] if connection else connection_names(settings):
        async with aclosing(_check_connection(settings, name, for_page=for_page)) as findings:
            async for finding in findings:
                yield finding


def job_classes() -> list[type[Job]]:
    """The registered classes, sorted by name and without duplicates for aliases."""
    return sorted(set(registry.registered().values()), key=lambda job: job.name)


def connection_names(settings: Settings) -> list[str]:
    """The default connection, those of the settings, and those that job classes name."""
    named = (job.connection for job in job_classes() if job.connection)
    return list(dict.fromkeys([*all_connections(settings), *settings.connections, *named]))


def _check_jobs(settings: Settings) -> Iterator[Finding]:
    if not settings.jobs:
        yield Finding.warning("jobs", "no module with jobs is named", "set OUTBOX_JOBS to the modules that define them")
    for module in settings.jobs:
        try:
            registry.import_jobs([module])
        except ConfigurationError as error:
            yield Finding.problem("jobs", str(error))
        else:
            yield Finding.ok("jobs", f"{module} is imported")
    classes = job_classes()
    if classes:
        described = ", ".join(f"{job.name} (queue {job.queue})" for job in classes)
        yield Finding.info("jobs", f"{counted(len(classes), 'job')} registered: {described}")
    elif settings.jobs:
        yield Finding.warning("jobs", "no job class is registered", "give the classes in these modules a `handle`")


async def _check_connection(settings: Settings, name: str, *, for_page: bool) -> AsyncGenerator[Finding, None]:
    try:
        driver = open_driver(settings, name)
    except ConfigurationError as error:
        yield Finding.problem(name, str(error))
        return
    try:
        if not for_page:
            await driver.check()
        tables = " and has the tables" if connection_settings(settings, name).driver == DATABASE else ""
        yield Finding.ok(name, f"{driver.description} answers{tables}")
        yield await compare_clocks(driver)
        for issue in await driver.health_issues():
            make = Finding.problem if issue.serious else Finding.warning
            yield make(name, issue.message, issue.advice)
        for finding in await driver.read_only(partial(_check_jobs_of, driver, for_page=for_page)):
            yield finding
    except OutboxError as error:
        yield Finding.problem(name, str(error))
    finally:
        await driver.close()


async def _check_jobs_of(driver: Driver, *, for_page: bool) -> list[Finding]:
    name, counts, workers = driver.name, await driver.queues.counts(), await driver.workers.all()
    return [
        *_count_jobs(name, counts),
        *check_queues(name, counts, workers, await driver.pauses.all()),
        *check_workers(name, workers),
        *await _check_names(driver),
        *([] if for_page else await _check_failed(driver)),
        *await _check_retries(driver, counts, examine=not for_page),
    ]


async def compare_clocks(driver: Driver) -> Finding:
    before = datetime.now(UTC)
    there = await driver.now()
    ahead = there - before - (datetime.now(UTC) - before) / 2
    if abs(ahead) < timedelta(seconds=1):
        return Finding.info(driver.name, "its clock and this machine's agree to a second")
    way = "ahead of" if ahead > timedelta() else "behind"
    seconds = abs(ahead).total_seconds()
    return Finding.info(
        driver.name, f"its clock is {seconds:,.0f} s {way} this machine's; jobs go by the server's, so nothing breaks"
    )


def _count_jobs(name: str, counts: Sequence[QueueCounts]) -> Iterator[Finding]:
    ready, failed = sum(queue.ready for queue in counts), sum(queue.failed for queue in counts)
    waits = [queue.oldest for queue in counts if queue.oldest is not None]
    waiting = f", the first for {age(max(waits))}" if waits else ""
    delayed, reserved = sum(queue.delayed for queue in counts), sum(queue.reserved for queue in counts)
    retrying = sum(queue.retrying for queue in counts)
    parked = sum(queue.parked for queue in counts)
    waits_for = f"{delayed:,} delayed, {retrying:,} retrying, {reserved:,} reserved"
    waits_for += f", {parked:,} parked" if parked else ""
    yield Finding.info(name, f"{ready:,} ready{waiting}; {waits_for}")
    if failed:
        yield Finding.warning(
            name, counted(failed, "failed job"), "see `outbox failed`; then `outbox retry` or `outbox forget`"
        )


def check_queues(
    name: str, counts: Sequence[QueueCounts], workers: Sequence[WorkerStatus], pauses: Sequence[Pause] = ()
) -> Iterator[Finding]:
    """What is paused, and queues that no worker drains although jobs are ready."""
    kept = {pause.name: pause for pause in pauses if pause.kind is PauseKind.QUEUE}
    whole = any(pause.kind is PauseKind.CONNECTION for pause in pauses)
    yield from (_paused(name, pause) for pause in pauses if pause.kind is not PauseKind.QUEUE)
    drained = {queue for worker in workers if not _silent(worker) for queue in worker.queues.split(",")}
    for queue in counts:
        target = relayed_connection(queue.queue)
        if target is not None:
            if queue.ready:
                yield _not_moved(name, queue.ready, target)
        elif queue.paused:
            if whole and queue.queue not in kept:
                continue
            terms = terms_text(kept[queue.queue]) if queue.queue in kept else ""
            message = f"the queue {queue.queue} is paused with {queue.ready:,} ready{one_line(terms)}"
            yield Finding.warning(name, message, f"`outbox resume {queue.queue}` lets workers go on")
        elif queue.ready and queue.queue not in drained:
            are = "is" if queue.ready == 1 else "are"
            message = f"no worker drains the queue {queue.queue}, where {counted(queue.ready, 'job')} {are} ready"
            yield Finding.warning(name, message, f"start one: `python -m outbox.work --queue {queue.queue}`")


def _paused(name: str, pause: Pause) -> Finding:
    chosen = "" if pause.kind is PauseKind.CONNECTION else f"--{pause.kind} {shlex.quote(pause.name)} "
    message = f"{pause.target} is paused{terms_text(pause)}"
    return Finding.warning(
        name, one_line(message), one_line(f"`outbox resume {chosen}--connection {name}` lets workers go on")
    )


def _not_moved(name: str, jobs: int, target: str) -> Finding:
    """No worker drains the queue of a relay. Every worker with both settings relays its jobs."""
    return Finding.warning(
        name,
        f"{counted(jobs, 'job')} wait{'s' if jobs == 1 else ''} to be moved to {target}",
        f"see `outbox check --connection {target}`; every worker with DATABASE_URL and the URL of {target} moves them "
        "within 10 s, and so does `python -m outbox.work --relay`",
    )


def _silent(worker: WorkerStatus) -> bool:
    return worker.seen > SILENT_SECONDS


def check_workers(name: str, workers: Sequence[WorkerStatus]) -> Iterator[Finding]:
    """How many workers are alive, and those that are silent."""
    alive = [worker for worker in workers if not _silent(worker)]
    if alive:
        yield Finding.info(name, f"{counted(len(alive), 'worker')} alive")
    for worker in workers:
        if _silent(worker):
            yield Finding.warning(
                name,
                f"the worker {worker.name} was last heard of {age(worker.seen)} ago",
                f"see what became of process {worker.pid} on {worker.host}; its jobs go to others by themselves",
            )


async def _check_retries(driver: Driver, counts: list[QueueCounts], *, examine: bool) -> list[Finding]:
    """Jobs that wait for another attempt, and, if some are to be examined, their most frequent error."""
    retrying = sum(queue.retrying for queue in counts)
    if not retrying:
        return []
    often = await _most_frequent_error(driver) if examine else ""
    waits = "waits" if retrying == 1 else "wait"
    message = f"{counted(retrying, 'job')} {waits} for another attempt after a failure{often}"
    return [Finding.warning(driver.name, message, "see `outbox jobs --state retrying` and `outbox show ID`")]


async def _most_frequent_error(driver: Driver) -> str:
    page = await driver.jobs.page(JobFilter(state=JobState.RETRYING), _JOBS_CHECKED)
    errors = Counter(f"{job.name} with {(job.last_error or '').partition(':')[0]}" for job in page.jobs)
    [(most, number)] = errors.most_common(1) or [("", 0)]
    return f", most often {most} ({number:,} of {len(page.jobs):,} examined)" if most else ""


async def _check_names(driver: Driver) -> list[Finding]:
    known = registry.registered()
    if not known:
        return []
    jobs = await driver.jobs.list_jobs(limit=_JOBS_CHECKED)
    unknown = sorted({job.name for job in jobs} - set(known))
    findings = [*check_versions(driver.name, jobs)]
    findings += [
        Finding.warning(
            driver.name,
            f"there are jobs named {name}, which no module of OUTBOX_JOBS registers: a worker would fail them",
            "add the module, or the name to the `aliases` of the class that took its place",
        )
        for name in unknown
    ]
    return findings


async def _check_failed(driver: Driver) -> list[Finding]:
    broken = await driver.failed.unretryable()
    if not broken:
        return []
    ids = ", ".join(map(str, broken))
    message = f"the payload or the headers of {counted(len(broken), 'failed job')} are not JSON: {ids}"
    return [Finding.warning(driver.name, message, "repair the rows, or `outbox forget` them")]
