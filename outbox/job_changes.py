"""Cancels jobs, changes a waiting one, and retries failed ones; tells those that have to know of it."""

from __future__ import annotations

from collections.abc import Sequence

from outbox.client_state import current_client
from outbox.connections import relayed_connections
from outbox.drivers.base import Driver
from outbox.drivers.filters import ANY_FAILED, FailedFilter
from outbox.drivers.values import JobChange
from outbox.ids import JobId
from outbox.open_drivers import driver_here
from outbox.relay.route import relay_queue, relayed_connection
from outbox.telling_workers import tell_workers
from outbox.wakeups.announce import announce, announce_cancelled


async def change_job(driver: Driver, job_id: JobId, wanted: JobChange) -> bool:
    """Whether there is such a live job.

    Raises:
        JobNotWaiting: as `JobInspection.change`.
    """
    queue = await driver.jobs.change(job_id, wanted)
    if queue is None:
        return False
    announce(current_client(), (queue,), driver.name)
    return True


async def cancel_jobs(driver: Driver, job_ids: Sequence[JobId]) -> list[JobId]:
    """Remove live jobs of ``driver``, and those that were relayed from there where they are now. Returns those that
    there were."""
    cancelled = await _cancel(driver, job_ids)
    left = set(job_ids).difference(cancelled)
    if driver.relay_source is None or not left:
        return cancelled
    relayed: dict[str, list[JobId]] = {}
    for job_id, queue in (await driver.relay_source.queues(list(left))).items():
        if (target := relayed_connection(queue)) is not None:
            relayed.setdefault(target, []).append(job_id)
    for name, ids in relayed.items():
        cancelled += await _cancel(driver_here(name), ids)
    return cancelled


async def _cancel(driver: Driver, job_ids: Sequence[JobId]) -> list[JobId]:
    cancelled = await driver.jobs.cancel(job_ids)
    if cancelled:
        announce_cancelled(current_client(), driver.name)
    return cancelled


async def retry_jobs(driver: Driver, job_ids: Sequence[JobId]) -> list[JobId]:
    """`FailedJobStore.retry`. Jobs that wait for a relay then are moved on at once."""
    retried = await driver.failed.retry(job_ids)
    if retried:
        _wake_relay(driver)
    return retried


async def retry_all_jobs(driver: Driver, queue: str | None, matching: FailedFilter = ANY_FAILED) -> int:
    """`FailedJobStore.retry_all`. Jobs that wait for a relay then are moved on at once."""
    retried = await driver.failed.retry_all(queue, matching=matching)
    if retried:
        _wake_relay(driver)
    return retried


def _wake_relay(driver: Driver) -> None:
    client = current_client()
    if driver.relay_target is not None and driver.name in relayed_connections(client.settings()):
        tell_workers(client, (relay_queue(driver.name),))
