"""Changes a waiting job, and wakes the workers that may run it now."""

from __future__ import annotations

from outbox.client_state import current_client
from outbox.drivers.base import Driver
from outbox.drivers.values import JobChange
from outbox.ids import JobId
from outbox.wakeups.announce import announce


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
