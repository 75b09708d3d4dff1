"""What applications call."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, Unpack, get_type_hints

from outbox.dispatch.in_session import AnySession, stage_in
from outbox.dispatch.preparing import serialize_all
from outbox.dispatch.without_session import store_all
from outbox.ids import JobId
from outbox.job import Job
from outbox.options import DISPATCH_OPTIONS, DispatchOptions

Function = TypeVar("Function", bound=Callable[..., Any])


def with_options(function: Function) -> Function:
    """Name the options one by one where ``help()`` shows the signature of ``function``."""
    signature, types = inspect.signature(function), get_type_hints(DispatchOptions)
    parameters = [each for each in signature.parameters.values() if each.kind is not inspect.Parameter.VAR_KEYWORD]
    parameters += [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=types[name])
        for name in DISPATCH_OPTIONS
    ]
    function.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return function


@with_options
async def dispatch(job: Job, *, session: AnySession | None = None, **options: Unpack[DispatchOptions]) -> JobId:
    """Dispatch ``job`` and return its id.

    With a ``session`` the job is written by the session's own transaction when it flushes: it exists if and only if
    that transaction commits. Nothing is awaited and no connection is opened, except for a unique job: its key is taken
    now. Without one the job is stored before this returns, in a transaction of its own.

    ``created`` of the id tells whether this made a job. It is False where a unique job has met one of the same key that
    waits: the id is that one's. It is False, too, where ``dispatch_if`` has left the job out: no job has the id.

    Every option left out is the job class's. ``delay`` is seconds, a ``timedelta`` or an aware ``datetime``, at most
    ten years ahead; the first two count from the write, by the database's clock. ``priority`` is 0 (first) to 9,
    ``max_tries`` 1 or more, ``timeout`` seconds per attempt (0: no limit), ``backoff`` seconds between attempts.
    `Job` describes the others.

    Raises:
        InvalidJob: a field does not validate, or would not reach a worker as it is; the message names it. Or no worker
            can have the class of the job.
        InvalidOption: an option is of a wrong type or out of its range.
        PayloadTooLarge: the serialised job is over ``OUTBOX_PAYLOAD_LIMIT`` bytes.
        SessionUnusable: the session cannot carry a job; the message says why.
        DuplicateJob: a job of the same key waits, and ``on_conflict`` is ``"raise"``; nothing was written.
        ConfigurationError: there is no such connection, or it is not set up; or there is no key to encrypt with.
        BackendUnavailable: without a session: the store does not answer, and the job may or may not be stored.
    """
    return (await dispatch_many((job,), session=session, **options))[0]


@with_options
async def dispatch_many(
    jobs: Iterable[Job], *, session: AnySession | None = None, **options: Unpack[DispatchOptions]
) -> list[JobId]:
    """Dispatch all ``jobs``, or none if one is refused: one INSERT per 1,000. Options and errors are those of
    `dispatch`.

    Without a session, jobs of one connection are stored in one transaction, and connections one after the other: where
    one does not answer, the jobs of those before it are stored.
    """
    serialized = serialize_all(jobs, options, takes_keys=True)
    if session is None:
        await store_all(serialized)
    else:
        await stage_in(session, serialized)
    return serialized.ids
