"""Batches: jobs that run in any order, and what follows when all of them have ended."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Unpack
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session

from outbox.arguments import AnyId, check_id, check_limit
from outbox.batch_members import Chain, add_members, check_one_database, wanted_members
from outbox.client_state import current_client
from outbox.connections import all_connections, is_relayed, is_relayed_to
from outbox.dispatch import (
    AnySession,
    Serialized,
    nothing_serialized,
    serialize_all,
    several,
    stage_all,
    store_together,
    sync_session,
    wanted_jobs,
    with_options,
)
from outbox.drivers.base import Driver, PolicyStore
from outbox.drivers.values import BatchStatus
from outbox.envelope import Envelope, Headers, as_member, link_of
from outbox.errors import ConfigurationError, InvalidJob, JobNotFound
from outbox.events import BatchDispatched
from outbox.ids import JobId, new_job_id
from outbox.job import Job
from outbox.job_changes import cancel_jobs, retry_jobs
from outbox.open_drivers import driver_here
from outbox.options import DispatchOptions
from outbox.policies.batch import AllowedFailures, BatchHeader, BatchPlan, FollowUp, check_allowed, check_name
from outbox.relay.route import to_relay_row
from outbox.settings import DATABASE

BatchId = JobId


class Batch:
    """A batch as a member of another: one member, which ends when its own members have ended. It has failed for good
    where more of them have than it allows. The arguments are those of `dispatch_batch`.

    Raises:
        InvalidOption: ``name`` or ``allow_failures`` is none.
        InvalidJob: ``jobs`` is one job.
    """

    def __init__(
        self,
        jobs: Iterable[Job | Chain | Batch],
        *,
        name: str = "",
        then: Job | None = None,
        catch: Job | None = None,
        finally_: Job | None = None,
        allow_failures: AllowedFailures = False,
    ) -> None:
        self.members = list(several(jobs))
        self.name = check_name(name)
        self.then = then
        self.catch = catch
        self.finally_ = finally_
        self.allow_failures = check_allowed(allow_failures)


@with_options
async def dispatch_batch(
    jobs: Iterable[Job | Chain | Batch],
    *,
    name: str = "",
    then: Job | None = None,
    catch: Job | None = None,
    finally_: Job | None = None,
    allow_failures: AllowedFailures = False,
    session: AnySession | None = None,
    **options: Unpack[DispatchOptions],
) -> BatchId:
    """Dispatch ``jobs`` as one batch, all or none, and return the id of the batch. A list among them is a chain: its
    jobs run one after the other, and it is one member, which ends with its last job and fails with any.

    When all have ended, ``then`` is dispatched, or ``catch`` where more have failed for good than ``allow_failures``: a
    number, a share such as ``"5%"``, or True for any number. ``finally_`` is dispatched in both cases. Each of them is
    dispatched at most once. Jobs on Redis are relayed through the database, which keeps the batch.

    Options hold for the members; ``then``, ``catch`` and ``finally_`` have those of their classes.

    Raises:
        InvalidJob: there is no job, or as `dispatch`.
        InvalidOption: ``name`` or ``allow_failures`` is none, the jobs are for several databases, a chain is for
            Redis, or as `dispatch`.
        PayloadTooLarge, SessionUnusable, ConfigurationError, BackendUnavailable: as `dispatch`.
    """
    batch = Batch(jobs, name=name, then=then, catch=catch, finally_=finally_, allow_failures=allow_failures)
    batch_id, serialized = serialize_batch(batch, options)
    if session is not None:
        stage_all(session, serialized)
    else:
        await store_together(serialized)
    return batch_id


def serialize_batch(batch: Batch, options: DispatchOptions) -> tuple[BatchId, Serialized]:
    """Check and serialise a batch with all that it holds."""
    making = _Making(options, {}, nothing_serialized())
    batch_id = making.add(batch, None)
    plans = {str(each): plan for each, plan in making.plans.items()}
    name, [first, *others] = next(iter(making.serialized.by_connection.items()))
    making.serialized.by_connection[name] = [as_member(first, BatchHeader(id=_batch_of(first), plans=plans)), *others]
    check_one_database(making.serialized)
    making.serialized.whole = partial(BatchDispatched, batch_id, batch.name, len(batch.members))
    return batch_id, making.serialized


def _batch_of(envelope: Envelope) -> BatchId:
    header = Headers.load(envelope.headers).batch
    assert header is not None  # noqa: S101 - each member got one
    return header.id


@dataclass
class _Making:
    options: DispatchOptions
    plans: dict[JobId, BatchPlan]
    serialized: Serialized

    def add(self, batch: Batch, parent: BatchId | None) -> BatchId:
        if not batch.members:
            raise InvalidJob("a batch has at least one job")
        jobs = wanted_members([each for each in batch.members if not isinstance(each, Batch)], self.options)
        batches = [each for each in batch.members if isinstance(each, Batch)]
        if not jobs and not batches:
            raise InvalidJob("a batch has at least one job, and `dispatch_if` leaves out all of this one")
        batch_id = new_job_id()
        self.plans[batch_id] = BatchPlan(
            name=batch.name,
            total=len(jobs) + len(batches),
            allow_failures=batch.allow_failures,
            then=_follow_up(batch.then),
            catch=_follow_up(batch.catch),
            finally_=_follow_up(batch.finally_),
            parent=parent,
        )
        add_members(self.serialized, jobs, BatchHeader(id=batch_id), {**self.options, "dispatch_if": True})
        for member in batches:
            self.add(member, batch_id)
        return batch_id


def _follow_up(job: Job | None) -> FollowUp | None:
    if job is None or not wanted_jobs([job], {}):
        return None
    serialized = serialize_all([job], {"dispatch_if": True})
    name, [envelope] = next(iter(serialized.by_connection.items()))
    if is_relayed(serialized.settings, name):
        envelope = to_relay_row(envelope, name)
    return FollowUp(id=envelope.id, job=link_of(envelope))


@with_options
async def add_to_batch(
    batch_id: AnyId,
    jobs: Iterable[Job | Chain],
    *,
    session: AnySession | None = None,
    **options: Unpack[DispatchOptions],
) -> list[JobId]:
    """Add ``jobs`` to a batch that has not ended, and return their ids: of a chain that of its first job. With a
    ``session`` they are written at once in its transaction, and the batch stays open until that ends. A member adds
    with ``self.context.batch.add``.

    Raises:
        BatchClosed: the batch has ended, was cancelled, or is not known; a session has to be rolled back then.
        DispatchError, ConfigurationError, BackendUnavailable: as `dispatch`.
    """
    serialized = serialize_addition(batch_id, jobs, options)
    if session is None:
        await store_together(serialized)
        return serialized.ids
    if isinstance(session, async_scoped_session):
        session = session()
    if isinstance(session, AsyncSession):
        await session.run_sync(lambda sync: stage_now(sync, serialized))
    else:
        stage_now(session, serialized)
    return serialized.ids


def serialize_addition(batch_id: AnyId, jobs: Iterable[Job | Chain], options: DispatchOptions) -> Serialized:
    serialized = nothing_serialized()
    add_members(serialized, list(several(jobs)), BatchHeader(id=_check_id(batch_id)), options)
    if not serialized.ids:
        raise InvalidJob("there is no job to add")
    check_one_database(serialized)
    return serialized


def stage_now(session: AnySession, serialized: Serialized) -> None:
    """Write what a dispatch stages, so that it is refused here and not at the commit."""
    stage_all(session, serialized)
    sync_session(session).flush()


def policies_of(driver: Driver) -> PolicyStore:
    """
    Raises:
        ConfigurationError: the connection keeps no batches.
    """
    if driver.policies is None:
        raise ConfigurationError(f"batches are kept by the database, not by the connection {driver.name}")
    return driver.policies


def no_batch(batch_id: UUID) -> JobNotFound:
    """The error of an operator who asks for a batch that is not known."""
    return JobNotFound(f"there is no batch {batch_id}: batches are forgotten a week after their end")


def _check_id(batch_id: AnyId) -> BatchId:
    return check_id(batch_id, "the id of a batch")


async def batch(batch_id: AnyId, *, connection: str = DATABASE) -> BatchStatus | None:
    """How far a batch is; None where it is not known. Batches are forgotten a week after their end.

    Raises:
        InvalidOption: ``batch_id`` is no id.
    """
    return await policies_of(driver_here(connection)).batch(_check_id(batch_id))


async def batches(*, limit: int = 100, connection: str = DATABASE) -> list[BatchStatus]:
    """The latest batches, the newest first: up to ``limit``, 1 to 10,000.

    Raises:
        InvalidOption: ``limit`` is of a wrong type or out of its range.
    """
    return await policies_of(driver_here(connection)).batches(check_limit(limit))


async def cancel_batch(batch_id: AnyId, *, connection: str = DATABASE) -> bool:
    """Cancel a batch that has not ended: its waiting jobs are removed, and running ones are stopped within a
    second, also on Redis. ``finally_`` is dispatched, ``then`` and ``catch`` are not. False where it has ended.

    Raises:
        InvalidOption: ``batch_id`` is no id.
    """
    return await cancel_on(driver_here(connection), _check_id(batch_id))


async def retry_batch(batch_id: AnyId, *, connection: str = DATABASE) -> int:
    """Put the failed jobs of a batch back, those of its inner batches included; return how many. The batch is open
    again, and ends again: what it has already dispatched is not dispatched a second time.

    Raises:
        InvalidOption: ``batch_id`` is no id.
    """
    return await retry_on(driver_here(connection), _check_id(batch_id))


async def cancel_on(driver: Driver, batch_id: BatchId) -> bool:
    """`cancel_batch` with an open driver."""
    policies = policies_of(driver)
    if not await policies.mark_cancelled(batch_id):
        return False
    after: JobId | None = None
    while members := await policies.batch_members(batch_id, after=after):
        for member in set(members).difference(await cancel_jobs(driver, members)):
            await cancel_on(driver, member)
        after = members[-1]
    await policies.end_batch(batch_id)
    return True


async def retry_on(driver: Driver, batch_id: BatchId) -> int:
    """`retry_batch` with an open driver."""
    policies = policies_of(driver)
    after: JobId | None = None
    retried = 0
    while members := await policies.batch_members(batch_id, failed=True, after=after):
        back = await retry_jobs(driver, members)
        rest: list[JobId] = []
        for member in set(members).difference(back):
            if await policies.batch(member) is None:
                rest.append(member)
            else:
                retried += await retry_on(driver, member)
        retried += len(back) + await _retry_relayed(rest)
        after = members[-1]
    return retried


async def _retry_relayed(job_ids: Sequence[JobId]) -> int:
    """How many of these have failed on connections that they were relayed to, and are put back."""
    settings = current_client().settings()
    relayed_to = [name for name in all_connections(settings) if is_relayed_to(settings, name)] if job_ids else []
    return sum([len(await retry_jobs(driver_here(name), job_ids)) for name in relayed_to])
