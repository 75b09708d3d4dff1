"""Tells other processes of commits, over Redis, without ever being in the way of one."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import TYPE_CHECKING

from outbox import clock
from outbox.at_exit import at_exit
from outbox.wakeups.redis_channel import CHANNEL, pack

if TYPE_CHECKING:
    from redis.asyncio import Redis  # An extra, and takes as long to import as all of outbox.

_MOST = 10_000
"""Names of queues that wait for a Redis that does not answer."""

_GAP = 0.01
"""Seconds between two messages. The first commit after a quiet time is told at once. Those that follow closely share a
message, or else publishing would take the interpreter as long as dispatching."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 30.0
_FAREWELL_SECONDS = 0.5
_NOT_BY_CHANCE = 2

_log = logging.getLogger("outbox.wakeups")


class Publisher:
    """Committing threads leave names of queues behind; a thread of its own publishes what has gathered, in one message
    for all the commits that came while it was publishing the one before, or shortly after.

    It is started by the first name. When the interpreter ends, what was just committed gets a moment to be told.
    """

    def __init__(self, connect: Callable[[], Redis]) -> None:
        self._connect = connect
        self._lock = threading.Lock()
        self._queues: set[str] = set()
        self._pending = False
        """The thread is publishing, or will look at the names soon: it needs no call."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wanted: asyncio.Event | None = None
        self._told = threading.Event()
        self._failures = 0
        self._patience = _FAREWELL_SECONDS
        os.register_at_fork(after_in_child=self._start_anew)
        at_exit(self._flush_at_exit)

    def publish(self, queues: Collection[str]) -> None:
        """Returns at once, and raises nothing. From any thread."""
        with self._lock:
            if len(self._queues) < _MOST:
                self._queues.update(queues)
            self._told.clear()
            if self._pending:
                return
            self._pending = True
            if self._loop is None:
                self._start()
                return
        if self._wanted is not None:
            # A loop that is closed belongs to an interpreter that ends.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._wanted.set)

    def _start(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._wanted = asyncio.Event()
        self._wanted.set()
        threading.Thread(target=self._run, args=(self._loop,), name="outbox-publisher", daemon=True).start()

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_until_complete(self._keep_publishing())
        except Exception:  # noqa: BLE001 - a thread has nobody above it who would hear of this
            _log.exception("wake-ups are not published any more: workers poll")

    async def _keep_publishing(self) -> None:
        while True:
            try:
                client = self._connect()
                try:
                    while True:
                        await self._publish_next(client)
                finally:
                    # A connection that is broken may not be closed without a word; that is no end of publishing.
                    with suppress(Exception):
                        await client.aclose()
            except Exception as error:  # noqa: BLE001 - workers poll meanwhile
                await self._pause_after(error)

    async def _publish_next(self, client: Redis) -> None:
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
            self._tell()
            await asyncio.sleep(_GAP)

    async def _pause_after(self, error: Exception) -> None:
        """The first failure means no more than that the server closed a connection that had been idle for long."""
        self._failures += 1
        if self._failures == _NOT_BY_CHANCE:
            _log.warning("Redis is not told of new jobs, workers find them by polling: %s", error)
        if self._failures >= _NOT_BY_CHANCE:
            await asyncio.sleep(min(_FIRST_PAUSE * 2.0 ** min(self._failures, 10), _LONGEST_PAUSE))

    def _take(self) -> set[str]:
        """What has gathered. After an empty set the thread has to be called again."""
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

    def _tell(self) -> None:
        with self._lock:
            if not self._queues:
                self._told.set()

    def _flush_at_exit(self) -> None:
        if self._loop is not None and self._failures < _NOT_BY_CHANCE:
            begun = clock.now()
            self._told.wait(self._patience)
            self._patience = max(0.0, self._patience - (clock.now() - begun))

    def _start_anew(self) -> None:
        """After a fork: the thread and the connection are the parent's."""
        self._lock = threading.Lock()
        self._loop = self._wanted = None
        self._pending = False
