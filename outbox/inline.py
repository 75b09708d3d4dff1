"""Runs a job in the caller's process, as a worker would."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from typing import Any, Unpack

from outbox.client_state import ClientPart, ClientState, current_client
from outbox.dispatch import serialize_all, store_all, wanted_jobs, with_options
from outbox.drivers.values import Claim
from outbox.envelope import Envelope
from outbox.errors import InvalidJob, InvalidOption, MissingResource
from outbox.events import Events, JobSettled
from outbox.handler_parameters import resource_types, takes_session
from outbox.ids import new_token
from outbox.job import Job
from outbox.middleware.interruption import Interruption
from outbox.middleware.results import HandlerResult
from outbox.middleware.thread_call import Threads
from outbox.options import DispatchOptions
from outbox.resources import Resources
from outbox.runtime.execution.attempt import Attempt
from outbox.runtime.execution.executor import Executor
from outbox.runtime.execution.failed_hook import FailedHooks
from outbox.runtime.execution.protected_task import enter_job, protected_task
from outbox.runtime.execution.resource_cleanup import ResourceCleanup
from outbox.runtime.slots import Slots
from outbox.settings import WorkerOptions
from outbox.settlement import PUT_BACK, Failure, Fence, Outcome, Settlement


@with_options
async def dispatch_now(
    job: Job, *, resources: Mapping[Any, Any] | Resources | None = None, **options: Unpack[DispatchOptions]
) -> Any:
    """Run ``job`` here and now, and return what its ``handle`` returned.

    It lives as in a worker: it is validated, serialised and loaded, has a context, middleware, a timeout and events,
    and ``failed()`` is called where it fails. A plain ``def handle`` runs in a thread. Nothing is stored: there is one
    attempt, and what fails it is raised. Limits, rates, keys and uniqueness are those of stored jobs, and do not apply.

    A job that releases or snoozes itself is dispatched with that delay; a job whose ``dispatch_if`` says no is not run.
    Both return None. Options are those of `outbox.dispatch`, without ``delay``.

    ``resources`` are what ``handle`` takes by its annotations: values by their types, or a `Resources`. Those of one
    job are closed before this returns.

    Raises:
        MissingResource: ``handle`` takes what ``resources`` do not have.
        InvalidJob: as `outbox.dispatch`, or its ``handle`` takes a session, in which only a stored job can end.
        InvalidOption: as `outbox.dispatch`, or a ``delay`` is given.
        JobTimeout: the attempt took longer than its timeout.
        BaseException: what ``handle`` raised, or the error given to ``self.context.fail()``.
    """
    if options.get("delay") is not None:
        raise InvalidOption("dispatch_now runs the job now: leave out `delay`, or use dispatch")
    if takes_session(type(job)):
        raise InvalidJob(f"{job.name}: `handle` takes a session, in which only a stored job can end: dispatch it")
    provided = resources if isinstance(resources, Resources) else Resources(resources)
    if resource_types(type(job)) and (problem := provided.missing(type(job))) is not None:
        raise MissingResource(f"{problem}, or give it to dispatch_now as `resources`")
    if not wanted_jobs([job], options):
        return None
    chosen: DispatchOptions = {**options, "dispatch_if": True}
    serialized = serialize_all((job,), chosen)
    [(connection, [envelope])] = serialized.by_connection.items()
    ended = await current_client().part(InlineRunner).run(_claim(envelope), connection, provided)
    if ended.settlement is not None and ended.settlement.outcome in PUT_BACK:
        await store_all(serialize_all((job,), {**chosen, "delay": ended.settlement.delay}, takes_keys=True))
        return None
    if ended.settlement is not None and ended.settlement.outcome is Outcome.FAILED and ended.error is not None:
        raise ended.error
    return ended.value


def _claim(envelope: Envelope) -> Claim:
    return Claim(
        Fence(envelope.id, new_token()),
        envelope.queue,
        envelope.name,
        envelope.priority,
        envelope.payload,
        envelope.headers,
        1,
        rescued=False,
        deadline=math.inf,
    )


class InlineAttempt(Attempt):
    """An attempt that keeps what its handler returned."""

    __slots__ = ("value",)
    value: Any


class _Executor(Executor):
    """No attempt follows one that has failed."""

    def _outcome(self, attempt: Attempt, result: HandlerResult, raised: BaseException | None) -> Settlement | None:
        if isinstance(attempt, InlineAttempt):
            attempt.value = result.value
        end = super()._outcome(attempt, result, raised)
        if end is not None and end.outcome is Outcome.RETRIED and end.failure is not None:
            return Settlement.failed(end.fence, end.failure)
        return end


class InlineRunner(ClientPart):
    """The executor of a client. Options are those of a worker, from the environment and pyproject.toml."""

    def __init__(self, client: ClientState | None = None) -> None:
        super().__init__(client)
        self._threads = Threads()

    async def run(self, claim: Claim, connection: str, resources: Resources) -> InlineAttempt:
        """Returns when the attempt has ended, and its hook, and its resources are closed. Where it was given up, its
        handler still runs, and its resources are closed after that."""
        options, events, slots = WorkerOptions.load(), self.client.events or Events(), Slots(1)
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        attempt = InlineAttempt(claim, connection, lambda _: ended.set_result(None))
        attempt.value = None
        cleanup = ResourceCleanup(slots, events)
        executor = _Executor(options, self._threads, events, resources=resources, close_resources=cleanup.close)
        attempt.task = protected_task(_make(executor, attempt), name=claim.name)
        try:
            await asyncio.shield(ended)
        except asyncio.CancelledError:
            attempt.interrupt(Interruption.SHUTDOWN)
            await asyncio.wait([ended])
            await _close_resources(attempt, slots)
            raise
        if (end := attempt.settlement) is not None:
            events.emit(attempt.event(JobSettled, end.outcome, attempt.seconds, end.delay, end.failure))
            if end.outcome is Outcome.FAILED:
                FailedHooks(options, slots, self._threads, events).call(attempt)
                await slots.idle()
        await _close_resources(attempt, slots)
        return attempt

    async def close(self) -> None:
        threads, self._threads = self._threads, Threads()
        await threads.stop()

    def after_fork(self) -> None:
        self._threads = Threads()


async def _close_resources(attempt: Attempt, slots: Slots) -> None:
    if attempt.resources is not None:
        attempt.resources.settled()
        await slots.idle()


async def _make(executor: Executor, attempt: Attempt) -> None:
    enter_job(attempt.task)
    try:
        attempt.end(await executor.run(attempt))
    except BaseException as error:  # noqa: BLE001 - the caller waits for the end, and raises it
        attempt.error = error
        attempt.end(Settlement.failed(attempt.fence, Failure.of(error)))
    finally:
        if attempt.resources is not None:
            attempt.resources.handler_ended()
