"""All jobs that are due, one after the other."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from outbox import registry
from outbox.client_state import ClientState, current_client
from outbox.connections import NOT_SET, connection_settings, is_default
from outbox.dispatch import AnySession
from outbox.drivers.values import Claim
from outbox.errors import ConfigurationError
from outbox.events import Event, HookFailed
from outbox.ids import JobId
from outbox.open_drivers import OpenDrivers
from outbox.options import RELAY_PREFIX, connection_or
from outbox.policies.results import Progress
from outbox.resources import Resources
from outbox.runtime.execution.attempt import Attempt
from outbox.runtime.execution.failed_hook import FailedHooks
from outbox.runtime.slots import Slots
from outbox.settings import DATABASE
from outbox.settlement import Outcome
from outbox.testing.performing import Performed, Runner, as_resources, close_resources
from outbox.testing.session_database import store_in_session
from outbox.testing.store import Store

_LEASE = 3600.0
_MOST = 1_000

_log = logging.getLogger("outbox.testing")


async def drain(
    *,
    session: AnySession | None = None,
    connection: str | None = None,
    queue: str | Sequence[str] | None = None,
    at_most: int = _MOST,
    resources: Mapping[Any, Any] | Resources | None = None,
) -> list[Performed]:
    """Run the jobs that are due, until none is, and return how each attempt ended, in order. ``failed()`` is called
    after a last attempt. A job whose retry is due later stays: see `travel`.

    Without a session these are the stored jobs of ``connection``, or of the default one, of all its queues or those in
    ``queue``. With one, they are those that its connection sees. The session must be on a connection whose transaction
    the test has begun and will roll back (``join_transaction_mode="create_savepoint"``). So must the sessions that the
    jobs use. What was dispatched in it is flushed before. ``resources`` are what ``handle`` of jobs takes, by their
    types, or `outbox.Resources`.

    Raises:
        ConfigurationError: no database is configured, the session is on no connection in a transaction, or a job takes
            a resource that is not given.
        AssertionError: more than ``at_most`` attempts were made, and jobs are due still.
        BackendUnavailable, TablesMissing: as their names say.
    """
    client = current_client()
    if client.recorder is not None:
        raise ConfigurationError("a fake is in use, which stores nothing that could be drained: leave it before")
    store = await _store(client, session, connection)
    queues = (queue,) if isinstance(queue, str) else queue
    ended: list[Performed] = []
    async with Runner(store.sessions, as_resources(resources), lambda _, job_id: store.times(job_id)) as runner:
        hooks = _Hooks(runner)
        while True:
            claims = await store.jobs.claim(queues or await _queues(store), 1, _LEASE)
            if not claims and not await _unparked(store):
                return ended
            for claim in claims:
                if len(ended) >= at_most:
                    raise AssertionError(
                        f"{at_most:,} jobs were run, and {claim.name} is due: does a job dispatch itself, or put "
                        f"itself back without a delay? The last: {ended[-1]!r}"
                    )
                ended.append(await _run(store, runner, hooks, claim))


async def _run(store: Store, runner: Runner, hooks: _Hooks, claim: Claim) -> Performed:
    if registry.is_registered(claim.name):
        runner.resources.check([registry.resolve(claim.name)], ", or give it to drain() as `resources`")
    attempt = await runner.run(claim, store.name, None if store.policies is None else _Unwritten())
    settlement = attempt.settlement
    if settlement is not None:
        settled = await store.jobs.settle([settlement])
        if settled.accepted and settlement.outcome is Outcome.FAILED:
            await hooks.call(attempt)
    elif attempt.committed is not None and claim.policies is not None and store.policies is not None:
        await store.policies.follow_commit(attempt.committed.accepted)
    await close_resources(attempt)
    return Performed(attempt)


async def _store(client: ClientState, session: AnySession | None, connection: str | None) -> Store:
    settings = client.settings()
    if session is not None:
        if connection is not None:
            raise ConfigurationError("a session has its connection: drain(session=…) takes no connection")
        return await store_in_session(session)
    name = connection_or(settings.connection, connection)
    connection_settings(settings, name)
    if name == DATABASE and is_default(settings, name):
        raise ConfigurationError(
            f"{NOT_SET}: set DATABASE_URL to that of the test's database, as with monkeypatch.setenv, or call "
            "outbox.configure(database_url=…) in a fixture; or drain(session=…) the test's own transaction"
        )
    return Store.of(client.part(OpenDrivers).get(name))


async def _queues(store: Store) -> Sequence[str]:
    return [each.queue for each in await store.queues.counts() if not each.queue.startswith(RELAY_PREFIX)] or [
        "default"
    ]


async def _unparked(store: Store) -> bool:
    """Whether policies made a job claimable that nothing else would have."""
    if store.policies is None:
        return False
    heard: set[str] = set()
    before = store.policies.on_news
    store.policies.on_news = lambda news: heard.update(news.queues)
    try:
        await store.policies.upkeep()
    finally:
        store.policies.on_news = before
    return bool(heard)


class _Unwritten:
    """`ProgressReports` of jobs that nothing looks at while they run. A finished job that is kept has the last one."""

    def report(self, job_id: JobId, progress: Progress) -> None: ...


class _Hooks:
    """Calls ``failed()``, and waits for its end."""

    def __init__(self, runner: Runner) -> None:
        self._slots = Slots(1)
        self._hooks = FailedHooks(runner.options, self._slots, runner.threads, runner.events)
        runner.events.listen(_log_failure, HookFailed)

    async def call(self, attempt: Attempt) -> None:
        self._hooks.call(attempt)
        self._slots.use(await self._slots.reserve(), 0)


def _log_failure(event: Event) -> None:
    assert isinstance(event, HookFailed)  # noqa: S101 - for the type checker: listens for nothing else
    _log.error("failed() of %s raised %s\n%s", event.name, event.failure.summary, event.failure.traceback)
