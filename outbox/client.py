"""A client: the settings of an application, and what is open for it in this process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import Token
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack

from outbox.batching import Batch, BatchId, dispatch_batch
from outbox.chains import dispatch_chain
from outbox.client_state import ClientState, current_client, enter_client, leave_client
from outbox.dispatch import AnySession, dispatch, dispatch_many, with_options
from outbox.events import Event, Listener
from outbox.ids import JobId
from outbox.job import Job
from outbox.listeners import Listeners
from outbox.options import DispatchOptions
from outbox.policies.batch import AllowedFailures
from outbox.settings import Settings

if TYPE_CHECKING:
    from outbox.embedded_worker import Worker


class Outbox:
    """Dispatches and works by its own settings, beside other clients in one process.

    Most applications need none: `outbox.dispatch` and the rest use the client of the process. A test, or a second
    application in the process, makes one: ``async with Outbox(Settings(database_url=…)):``. In the block, every
    function of `outbox` and `outbox.sync` uses it, in this task and those that it starts.

    Ids of jobs, job classes and the wake-ups inside the process are shared by all clients.

    Raises:
        ConfigurationError: a setting is wrong.
    """

    def __init__(self, settings: Settings | None = None, **given: Any) -> None:
        """``given`` are settings by name, for a client without ``settings``; what they leave open is the environment's,
        as it is now."""
        if settings is not None and given:
            raise TypeError(f"give settings, or {', '.join(given)} for a client without")
        self._state = ClientState(settings or Settings.load(**given))
        self._tokens: list[Token[ClientState]] = []

    @property
    def settings(self) -> Settings:
        return self._state.settings()

    @contextmanager
    def use(self) -> Iterator[Self]:
        """In the block, functions of `outbox` and `outbox.sync` use this client. Nothing is closed at its end."""
        token = enter_client(current_client().around(self._state))
        try:
            yield self
        finally:
            leave_client(token)

    @with_options
    async def dispatch(
        self, job: Job, *, session: AnySession | None = None, **options: Unpack[DispatchOptions]
    ) -> JobId:
        """As `outbox.dispatch`."""
        with self.use():
            return await dispatch(job, session=session, **options)

    @with_options
    async def dispatch_many(
        self, jobs: Iterable[Job], *, session: AnySession | None = None, **options: Unpack[DispatchOptions]
    ) -> list[JobId]:
        """As `outbox.dispatch_many`."""
        with self.use():
            return await dispatch_many(jobs, session=session, **options)

    @with_options
    async def dispatch_chain(
        self,
        jobs: Iterable[Job],
        *,
        catch: Job | None = None,
        session: AnySession | None = None,
        **options: Unpack[DispatchOptions],
    ) -> JobId:
        """As `outbox.dispatch_chain`."""
        with self.use():
            return await dispatch_chain(jobs, catch=catch, session=session, **options)

    @with_options
    async def dispatch_batch(
        self,
        jobs: Iterable[Job | Batch],
        *,
        name: str = "",
        then: Job | None = None,
        catch: Job | None = None,
        finally_: Job | None = None,
        allow_failures: AllowedFailures = False,
        session: AnySession | None = None,
        **options: Unpack[DispatchOptions],
    ) -> BatchId:
        """As `outbox.dispatch_batch`."""
        with self.use():
            return await dispatch_batch(
                jobs,
                name=name,
                then=then,
                catch=catch,
                finally_=finally_,
                allow_failures=allow_failures,
                session=session,
                **options,
            )

    def worker(self, **options: Any) -> Worker:
        """A worker for the connections of this client. ``options`` are those of `outbox.Worker`."""
        # An application that only dispatches needs nothing of what a worker is made of.
        from outbox.embedded_worker import Worker

        with self.use():
            return Worker(**options)

    def listen(self, listener: Listener, *kinds: type[Event]) -> None:
        """Call ``listener`` with each event of these kinds, or of every kind: of the dispatches of this client, and of
        the workers that it starts afterwards.

        Listeners run in a thread of their own, so that none delays a dispatch or a job. What one raises is logged. When
        10,000 events wait, further ones are dropped, which is logged.

        Raises:
            ConfigurationError: ``listener`` is ``async def`` or no function, or one of ``kinds`` is no class of events.
        """
        self._state.part(Listeners).add(listener, kinds)

    async def close(self) -> None:
        """Close what this client has open: the connections of this event loop and of sync code, and its threads. The
        connections of another loop are closed when that ends. What is used again is opened again."""
        for part in self._state.parts():
            await part.close()

    async def __aenter__(self) -> Self:
        self._tokens.append(enter_client(current_client().around(self._state)))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A fixture may end in another context than it has begun in, which never had this client.
        with suppress(ValueError):
            leave_client(self._tokens.pop())
        await self.close()
