"""Live jobs, running ones, and one job wherever it is."""

from __future__ import annotations

from outbox.console.job_notes import notes_on
from outbox.console.running import running_page
from outbox.drivers.base import Driver
from outbox.drivers.filters import FinishedPage, FinishedPlace, JobFilter, JobPlace
from outbox.drivers.pauses import described, pause_of
from outbox.drivers.values import FailedJob, JobState
from outbox.errors import JobNotFound
from outbox.ids import JobId
from outbox.web.readings.classes import class_of
from outbox.web.readings.source import Subject, once
from outbox.web.stores import WebStores
from outbox.web.values import FinishedJobs, KeptJob, LiveJob, LivePage


class JobReadings(Subject):
    @once
    async def page(self, connection: str, matching: JobFilter, limit: int, after: JobPlace | None) -> LivePage:
        async def read(driver: Driver) -> LivePage:
            page = await driver.jobs.page(matching, limit, after)
            reasons: dict[JobId, str] = {}
            pauses = await driver.pauses.all()
            for job in page.jobs:
                if (pause := pause_of(pauses, job)) is not None:
                    reasons[job.id] = described(pause)
                elif job.state is JobState.PARKED and driver.policies is not None:
                    told = [each for each in await driver.policies.explain(job) if each.startswith("parked")]
                    reasons.update({job.id: told[0]} if told else {})
            return LivePage(page, await driver.now(), reasons)

        return await self.stores.ask(connection, read)

    @once
    async def running(self, connection: str, matching: JobFilter, limit: int) -> LivePage:
        """The jobs that workers named in their last heartbeats and still hold."""

        async def read(driver: Driver) -> LivePage:
            return LivePage(await running_page(driver, matching, limit), await driver.now(), {})

        return await self.stores.ask(connection, read)

    @once
    async def finished(
        self, connection: str, matching: JobFilter, limit: int, after: FinishedPlace | None
    ) -> FinishedJobs:
        async def read(driver: Driver) -> FinishedJobs:
            if driver.finished is None:
                return FinishedJobs(FinishedPage([], None), await driver.now(), is_kept=False)
            page = await driver.finished.page(matching.queue, matching.name, limit, after)
            return FinishedJobs(page, await driver.now(), is_kept=True)

        return await self.stores.ask(connection, read)

    @once
    async def get(self, job_id: JobId) -> LiveJob | FailedJob | KeptJob:
        """The live, failed or kept job of this id, in the first connection that has it.

        Raises:
            JobNotFound: no connection that answers has it.
        """

        async def read(driver: Driver) -> LiveJob | FailedJob | KeptJob | None:
            live = await _live_job(self.stores, driver, job_id)
            return live or await driver.failed.get(job_id) or await _kept_job(driver, job_id)

        answers, _ = await self.stores.ask_all(read)
        found = next((each for each in answers.values() if each is not None), None)
        if found is None:
            raise JobNotFound(f"there is no job {job_id}, live or failed: it has ended, was removed, or never was")
        return found


async def _kept_job(driver: Driver, job_id: JobId) -> KeptJob | None:
    job = None if driver.finished is None else await driver.finished.get(job_id)
    return None if job is None else KeptJob(driver.name, job, await driver.now())


async def _live_job(stores: WebStores, driver: Driver, job_id: JobId) -> LiveJob | None:
    job = await driver.jobs.get(job_id)
    if job is None:
        return None
    told = await notes_on(driver, job, class_of(stores, job.name))
    runs = [(worker, run) for worker in await driver.workers.all() for run in worker.jobs if run.id == job_id]
    worker, run = runs[0] if runs else (None, None)
    return LiveJob(driver.name, job, await driver.now(), worker, run, tuple(told))
