"""The drivers of the dashboard: a small pool of its own for each connection, and a limit on how long a page waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Hashable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import count
from typing import Any, TypeVar

from outbox.client_state import ClientState, current_client, current_settings, enter_client, leave_client
from outbox.connections import all_connections, connection_settings, open_driver
from outbox.drivers.base import Driver
from outbox.errors import BackendUnavailable, ConfigurationError, InvalidOption, OutboxError
from outbox.loop_cleanup import before_loop_ends
from outbox.settings import Settings
from outbox.telling_workers import pass_on_policy_news
from outbox.web.kept_answers import KeptAnswers

T = TypeVar("T")

POOL_SIZE = 2
_KEPT_SECONDS, _RECENT_SECONDS = 20.0, 1.5
_numbers = count()


class _Opened:
    """The drivers of one event loop."""

    def __init__(self) -> None:
        self.drivers: dict[tuple[str, str, str | None], Driver] = {}
        self.closes_at_end: AsyncGenerator[None, None] | None = None

    async def close(self) -> None:
        drivers, self.drivers = self.drivers, {}
        for driver in drivers.values():
            await driver.close()


class WebStores:
    """Asks the connections of the settings, or only those of ``connections``.

    A call that takes longer than ``time_limit`` seconds is left to itself and not cancelled: the page says so, and the
    connection stays usable.
    """

    def __init__(
        self, settings: Settings | None = None, connections: Sequence[str] | None = None, time_limit: float = 5.0
    ) -> None:
        self._client = None if settings is None else ClientState(settings)
        self._connections = connections
        self._time_limit = time_limit
        # Kept with each event loop, so that the drivers are open until it ends.
        self._attribute = f"_outbox_web_{next(_numbers)}"
        self._kept = KeptAnswers()
        self._left: set[asyncio.Task[object]] = set()

    @property
    def settings(self) -> Settings:
        return current_settings() if self._client is None else self._client.settings()

    @contextmanager
    def as_client(self) -> Iterator[None]:
        """In the block, functions of `outbox` go by the settings of the dashboard."""
        if self._client is None:
            yield
            return
        token = enter_client(self._client)
        try:
            yield
        finally:
            leave_client(token)

    @property
    def names(self) -> list[str]:
        return list(self._connections or all_connections(self.settings))

    def chosen(self, name: str | None) -> str:
        """The connection called ``name``; without a name, the first.

        Raises:
            InvalidOption: the dashboard does not show it.
        """
        if name is None:
            return self.names[0]
        if name not in self.names:
            raise InvalidOption(f"there is no connection {name[:64]!r} here; there are: {', '.join(self.names)}")
        return name

    async def ask(self, name: str, question: Callable[[Driver], Awaitable[T]]) -> T:
        """Ask one connection.

        Raises:
            BackendUnavailable: it does not answer in time.
            OutboxError: as the question.
        """
        driver = self._driver(name, reads=True)
        task = self._begin(driver.read_only(partial(question, driver)))
        done, _ = await asyncio.wait([task], timeout=self._time_limit)
        if not done:
            raise BackendUnavailable(f"the connection {name} did not answer within {self._time_limit:g} s")
        return task.result()

    async def kept(self, name: str, question: Callable[[Driver], Awaitable[T]]) -> T:
        """The answer to `ask`, or its error, of up to 20 seconds ago: for what changes once a minute. What takes long
        is kept for 20 times as long.

        Raises:
            OutboxError: as `ask`.
        """
        return await self.kept_answer((name, question), lambda: self.ask(name, question))

    async def kept_answer(self, key: Hashable, ask: Callable[[], Awaitable[T]]) -> T:
        """As `kept`, for what ``ask`` returns.

        Raises:
            OutboxError: as ``ask``.
        """
        return await self._kept.get(key, ask, lambda _: _KEPT_SECONDS, error_seconds=_KEPT_SECONDS)

    async def recent(
        self,
        name: str,
        key: Hashable,
        question: Callable[[Driver], Awaitable[T]],
        is_large: Callable[[T], bool],
    ) -> T:
        """The answer to `ask`. One that ``is_large`` serves all viewers for 1.5 seconds, or for longer if it took more
        than a second. A change through this dashboard ends that.

        Raises:
            OutboxError: as `ask`.
        """

        def seconds(answer: T) -> float:
            return _RECENT_SECONDS if is_large(answer) else 0.0

        return await self._kept.get((name, key), lambda: self.ask(name, question), seconds, until_change=True)

    async def change(self, name: str, work: Callable[[Driver], Awaitable[T]]) -> T:
        """Change something in one connection, however long it takes. It goes on when the browser has gone.

        Raises:
            OutboxError: as the work.
        """
        try:
            return await asyncio.shield(self._begin(_done(work, self._driver(name))))
        finally:
            self._kept.forget_after_change()

    def _begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.ensure_future(work)
        self._left.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[object]) -> None:
        self._left.discard(task)
        # The error of a call that was left to itself is no news: the page has said that it took too long.
        if not task.cancelled():
            task.exception()

    async def ask_all(self, question: Callable[[Driver], Awaitable[T]]) -> tuple[dict[str, T], dict[str, OutboxError]]:
        """Ask every connection: the answers, and the errors of those that do not answer, by name.

        Raises:
            OutboxError: none of them answered. It is the error of the first.
        """
        return await self.each(lambda name: self.ask(name, question))

    async def each(self, ask: Callable[[str], Awaitable[T]]) -> tuple[dict[str, T], dict[str, OutboxError]]:
        """As `ask_all`, where ``ask`` asks the connection of a name.

        Raises:
            OutboxError: as `ask_all`.
        """
        answers: dict[str, T] = {}
        errors: dict[str, OutboxError] = {}
        for name in self.names:
            try:
                answers[name] = await ask(name)
            except (BackendUnavailable, ConfigurationError) as error:
                errors[name] = error
        if errors and not answers:
            raise next(iter(errors.values()))
        return answers, errors

    def _driver(self, name: str, *, reads: bool = False) -> Driver:
        """One for changes is another where the connection has a replica: what is done goes to the primary alone."""
        loop = asyncio.get_running_loop()
        opened: _Opened | None = getattr(loop, self._attribute, None)
        if opened is None:
            opened = _Opened()
            setattr(loop, self._attribute, opened)
            opened.closes_at_end = before_loop_ends(opened.close)
        settings = self.settings
        known = connection_settings(settings, name)
        key = (name, known.url, known.replica_url if reads else None)
        if key not in opened.drivers:
            driver = opened.drivers[key] = open_driver(settings, name, pool_size=POOL_SIZE, reads_replica=reads)
            pass_on_policy_news(self._client or current_client(), driver)
        return opened.drivers[key]


async def _done(work: Callable[[Driver], Awaitable[T]], driver: Driver) -> T:
    return await work(driver)
