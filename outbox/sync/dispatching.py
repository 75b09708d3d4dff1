"""Dispatching from code that is not async."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Unpack

from outbox.arguments import AnyId
from outbox.batch_members import Chain
from outbox.batching import Batch, BatchId, serialize_addition, serialize_batch, stage_now
from outbox.chains import serialize_chain
from outbox.client_state import current_client
from outbox.dispatch import AnySession, serialize_all, stage_all, store_all, store_together, with_options
from outbox.ids import JobId
from outbox.inbox import inbox
from outbox.job import Job
from outbox.options import DispatchOptions
from outbox.policies.batch import AllowedFailures
from outbox.policies.inbox import MessageId
from outbox.resources import Resources
from outbox.sync.loops import SyncLoops


@with_options
def dispatch(job: Job, *, session: AnySession | None = None, **options: Unpack[DispatchOptions]) -> JobId:
    """`outbox.dispatch`, for code with a sync ``Session`` or none."""
    return dispatch_many((job,), session=session, **options)[0]


@with_options
def dispatch_many(
    jobs: Iterable[Job], *, session: AnySession | None = None, **options: Unpack[DispatchOptions]
) -> list[JobId]:
    """`outbox.dispatch_many`, for code with a sync ``Session`` or none.

    Without a session it blocks until the jobs are stored. They are taken from ``jobs`` and written in the caller's
    thread, over connections that are kept for the next call from any thread.
    """
    # Here, not on the loop: a generator of jobs may use what belongs to its thread, or dispatch some itself.
    serialized = serialize_all(jobs, options, takes_keys=True)
    if session is not None:
        stage_all(session, serialized)
    else:
        serialized.client.part(SyncLoops).run(lambda: store_all(serialized))
    return serialized.ids


@with_options
def dispatch_chain(
    jobs: Iterable[Job],
    *,
    catch: Job | None = None,
    session: AnySession | None = None,
    **options: Unpack[DispatchOptions],
) -> JobId:
    """`outbox.dispatch_chain`, for code with a sync ``Session`` or none."""
    serialized = serialize_chain(jobs, catch, options)
    if session is not None:
        stage_all(session, serialized)
    else:
        serialized.client.part(SyncLoops).run(lambda: store_all(serialized))
    return serialized.ids[0]


@with_options
def dispatch_batch(
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
    """`outbox.dispatch_batch`, for code with a sync ``Session`` or none."""
    batch = Batch(jobs, name=name, then=then, catch=catch, finally_=finally_, allow_failures=allow_failures)
    batch_id, serialized = serialize_batch(batch, options)
    if session is not None:
        stage_all(session, serialized)
    else:
        serialized.client.part(SyncLoops).run(lambda: store_together(serialized))
    return batch_id


@with_options
def add_to_batch(
    batch_id: AnyId,
    jobs: Iterable[Job | Chain],
    *,
    session: AnySession | None = None,
    **options: Unpack[DispatchOptions],
) -> list[JobId]:
    """`outbox.add_to_batch`, for code with a sync ``Session`` or none."""
    serialized = serialize_addition(batch_id, jobs, options)
    if session is not None:
        stage_now(session, serialized)
    else:
        serialized.client.part(SyncLoops).run(lambda: store_together(serialized))
    return serialized.ids


@with_options
def receive(
    session: AnySession, message_id: MessageId, job: Job, *, source: str = "default", **options: Unpack[DispatchOptions]
) -> JobId | None:
    """`outbox.receive`, for code with a sync ``Session``."""
    serialized = serialize_all([job], options, takes_keys=True)
    with inbox(session, message_id, source=source) as fresh:
        if not fresh:
            return None
        stage_all(session, serialized)
    return serialized.ids[0]


@with_options
def dispatch_now(
    job: Job, *, resources: Mapping[Any, Any] | Resources | None = None, **options: Unpack[DispatchOptions]
) -> Any:
    """`outbox.dispatch_now`, for code that is not async: it blocks until the attempt has ended."""
    # An application that only dispatches needs nothing of what a worker is made of.
    from outbox import inline

    loops = current_client().part(SyncLoops)
    return loops.run(lambda: inline.dispatch_now(job, resources=resources, **options))
