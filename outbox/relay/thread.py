"""The relay of a process that dispatches: it moves on what has just been committed there, at once."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable

from outbox import clock
from outbox.client_state import ClientPart, ClientState
from outbox.connections import open_for_relay
from outbox.drivers.values import PolicyNews
from outbox.errors import OutboxError
from outbox.relay.relay import Relay
from outbox.settings import DATABASE, Settings

FLUSH_SECONDS = 2.0
"""How long an interpreter that ends waits at most until what was just committed has been moved on. To move it
takes a few milliseconds; this is for a thread that has only just been started, and has yet to open its connections."""

_log = logging.getLogger("outbox.relay")


class RelayThread:
    """A thread with an event loop and connections of its own, started by the first commit and asleep between commits.

    It is a matter of latency only. When it cannot do its work, or the process ends before it has, any worker of the
    fleet does it. An error that is not one of outbox's ends it, until the next commit; where the interpreter is
    ``ending``, whose executors and threads then refuse work, that is no more than a line in the log.
    """

    def __init__(
        self,
        connection: str,
        ending: threading.Event,
        settings: Callable[[], Settings],
        on_policy_news: Callable[[PolicyNews], None],
    ) -> None:
        self._settings = settings
        self._on_policy_news = on_policy_news
        self._connection = connection
        self._ending = ending
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._committed: asyncio.Event | None = None
        self._thread: threading.Thread | None = None
        self._stopped = False
        self._pending = False
        """Something was committed since the last move began."""
        self._moved = threading.Event()
        self._moved.set()
        self._failed = False
        """The last move that has ended did."""

    @property
    def moved(self) -> bool:
        """Whether nothing is left that was committed here, or it is left to the workers."""
        return self._moved.is_set()

    def wake(self) -> None:
        """Jobs were committed. Never waits, and raises nothing."""
        with self._lock:
            self._pending = True
            if self._thread is None and not self._start():
                return
            self._moved.clear()
            self._notify()

    def stop(self) -> None:
        """Finish what is being moved, and end."""
        with self._lock:
            self._stopped = True
            self._notify()
            thread = self._thread
        if thread is not None:
            thread.join()

    def wait(self, seconds: float) -> None:
        """Until what was committed before has been moved on, or was tried in vain, but no longer than this; not at all
        when the move before failed."""
        if not self._failed:
            self._moved.wait(seconds)

    def _start(self) -> bool:
        """Whether there is a thread now: an interpreter that ends starts none."""
        thread = threading.Thread(target=self._run, name=f"outbox-relay-{self._connection}", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            self._leave(error)
            return False
        self._thread = thread
        return True

    def _notify(self) -> None:
        if self._loop is not None and self._committed is not None:
            self._loop.call_soon_threadsafe(self._committed.set)

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except OutboxError as error:
            self._leave(error)
        except Exception as error:
            if not self._ending.is_set():
                raise
            self._leave(error)
        finally:
            with self._lock:
                self._thread = None
                self._moved.set()

    async def _main(self) -> None:
        committed = asyncio.Event()
        # What was committed while this thread was starting is found all the same.
        committed.set()
        with self._lock:
            self._loop, self._committed = asyncio.get_running_loop(), committed
        try:
            while not self._stopped:
                await self._move_under(self._settings(), committed)
        finally:
            with self._lock:
                self._loop = None

    async def _move_under(self, settings: Settings, committed: asyncio.Event) -> None:
        """Move what is committed, until this thread is to end or the client has other settings."""
        source, target = open_for_relay(settings, DATABASE), open_for_relay(settings, self._connection)
        if source.policies is not None:
            source.policies.on_news = self._on_policy_news
        relay = Relay(source, target, self._connection)
        try:
            while True:
                await committed.wait()
                if self._stopped or self._settings() is not settings:
                    return
                committed.clear()
                await self._move_all(relay)
        finally:
            await source.close()
            await target.close()

    async def _move_all(self, relay: Relay) -> None:
        with self._lock:
            self._pending = False
        try:
            while await relay.move():
                pass
            self._failed = False
        except OutboxError as error:
            self._failed = True
            self._leave(error)
        with self._lock:
            if not self._pending:
                self._moved.set()

    def _leave(self, error: Exception) -> None:
        _log.warning("jobs for %s are left to the workers to move on: %s", self._connection, error)


class RelayThreads(ClientPart):
    """The relay threads of a client, one for each connection that jobs are relayed to."""

    def __init__(self, client: ClientState | None = None) -> None:
        super().__init__(client)
        self._lock = threading.Lock()
        self.threads: dict[str, RelayThread] = {}
        """By connection."""
        self._ending = threading.Event()
        self.seconds_left = FLUSH_SECONDS
        """Of those for which `flush_at_exit` may wait."""

    def wake(self, connection: str, on_policy_news: Callable[[PolicyNews], None]) -> None:
        """Jobs for ``connection`` were committed. ``on_policy_news`` is told what policies report of their moves. Never
        waits, and raises nothing."""
        with self._lock:
            thread = self.threads.get(connection)
            if thread is None:
                thread = RelayThread(connection, self._ending, self.client.settings, on_policy_news)
                self.threads[connection] = thread
        thread.wake()

    def stop(self) -> None:
        """End all of them. The next commit starts anew."""
        with self._lock:
            threads, self.threads = self.threads, {}
        for thread in threads.values():
            thread.stop()

    def flush_at_exit(self) -> None:
        """The interpreter ends: give what was just committed a moment to be moved on. However often this is called, it
        waits no longer than `FLUSH_SECONDS` in all."""
        self._ending.set()
        until = clock.now() + self.seconds_left
        try:
            with self._lock:
                threads = list(self.threads.values())
            for thread in threads:
                thread.wait(until - clock.now())
        except (KeyboardInterrupt, SystemExit):
            # Raised by a signal's handler: wait no longer. The process is ending already.
            until = 0.0
        self.seconds_left = max(0.0, until - clock.now())

    async def close(self) -> None:
        await asyncio.to_thread(self.stop)

    def after_fork(self) -> None:
        """Threads exist only in the parent."""
        self.__init__(self.client)  # type: ignore[misc]
