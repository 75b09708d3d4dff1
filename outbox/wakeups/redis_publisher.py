"""Publishes commits to other processes over Redis, without delaying them."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Protocol

from outbox import clock
from outbox.wakeups.redis_channel import CHANNEL, pack

MOST_QUEUES = 10_000
"""Names that are kept while Redis does not answer."""

_GAP = 0.01
"""Seconds between two messages. The first commit after a quiet time is published at once. Those that follow share a
message, because publishing each would take as much CPU as dispatching it."""

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 30.0
"""Seconds after a first failure, and at most. Each pause is twice as long as the one before."""
EXIT_SECONDS = 0.5
"""For which the end of a process waits until its last message is published."""
_OUTAGE_AFTER = 2
"""Failures in a row. A single one may be an idle connection that the server closed."""

_log = logging.getLogger("outbox.wakeups")


class PublishClient(Protocol):
    async def publish(self, channel: str, message: str, /) -> None: ...

    async def aclose(self) -> None: ...


class Publisher:
    """Collects names of queues from committing threads and publishes them from a background thread.

    Commits that come during or shortly after a message share the next one. The thread starts with the first name. At
    exit it has up to 0.5 seconds for the last message.
    """

    def __init__(self, connect: Callable[[], PublishClient]) -> None:
        self._connect = connect
        self._lock = threading.Lock()
        self._queues: set[str] = set()
        self._pending = False
        """The thread is awake and will read the names."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wanted: asyncio.Event | None = None
        self._published = threading.Event()
        self._failures = 0
        self._exit_seconds = EXIT_SECONDS
        self._thread: threading.Thread | None = None
        self._task: asyncio.Task[None] | None = None

    def publish(self, queues: Collection[str]) -> None:
        """Thread-safe. Never waits, never raises."""
        with self._lock:
            if len(self._queues) < MOST_QUEUES:
                self._queues.update(queues)
            self._published.clear()
            if self._pending:
                return
            self._pending = True
            if self._loop is None:
                self._start()
                return
        if self._wanted is not None:
            # The loop is closed: the interpreter is exiting.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._wanted.set)

    def _start(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._wanted = asyncio.Event()
        self._wanted.set()
        self._thread = threading.Thread(target=self._run, args=(self._loop,), name="outbox-publisher", daemon=True)
        self._thread.start()

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            self._task = loop.create_task(self._keep_publishing())
            with suppress(asyncio.CancelledError):
                loop.run_until_complete(self._task)
        except Exception:  # noqa: BLE001 - nothing catches the exceptions of a thread
            _log.exception("wake-ups are not published any more: workers poll")
        finally:
            loop.close()

    def stop(self) -> None:
        """Publish the names that wait, within 0.5 s, and end the thread. The publisher cannot be used again."""
        self.flush_at_exit()
        with self._lock:
            loop, thread, self._thread = self._loop, self._thread, None
        if loop is not None and thread is not None:
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(lambda: self._task.cancel() if self._task is not None else None)
            thread.join()

    async def _keep_publishing(self) -> None:
        while True:
            try:
                client = self._connect()
                try:
                    while True:
                        await self._publish_next(client)
                finally:
                    # Closing a broken connection may raise.
                    with suppress(Exception):
                        await client.aclose()
            except Exception as error:  # noqa: BLE001 - workers poll meanwhile
                await self._pause_after(error)

    async def _publish_next(self, client: PublishClient) -> None:
        assert self._wanted is not None  # noqa: S101 - for the type checker: started
        await self._wanted.wait()
        self._wanted.clear()
        while queues := self._take():
            try:
                await client.publish(CHANNEL, pack(queues))
            except BaseException:
                self._put_back(queues)
                raise
            self._failures = 0
            self._signal_published()
            await asyncio.sleep(_GAP)

    async def _pause_after(self, error: Exception) -> None:
        """Retry a first failure at once, and wait between later ones."""
        self._failures += 1
        if self._failures == _OUTAGE_AFTER:
            _log.warning("Redis is not told of new jobs, workers find them by polling: %s", error)
        if self._failures >= _OUTAGE_AFTER:
            await asyncio.sleep(min(FIRST_PAUSE * 2.0 ** min(self._failures, 10), LONGEST_PAUSE))

    def _take(self) -> set[str]:
        """Take the names. After an empty set, `publish` has to wake the thread."""
        with self._lock:
            queues, self._queues = self._queues, set()
            self._pending = bool(queues)
        return queues

    def _put_back(self, queues: set[str]) -> None:
        with self._lock:
            self._queues |= queues
            self._pending = True
        assert self._wanted is not None  # noqa: S101 - for the type checker: started
        self._wanted.set()

    def _signal_published(self) -> None:
        with self._lock:
            if not self._queues:
                self._published.set()

    def flush_at_exit(self) -> None:
        if self._loop is not None and self._failures < _OUTAGE_AFTER:
            begun = clock.now()
            self._published.wait(self._exit_seconds)
            self._exit_seconds = max(0.0, self._exit_seconds - (clock.now() - begun))

    def after_fork(self) -> None:
        """The thread and the connection belong to the parent process."""
        self._lock = threading.Lock()
        self._loop = self._wanted = None
        self._pending = False
