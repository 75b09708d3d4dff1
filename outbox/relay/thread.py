"""The relay of a process that dispatches: it moves on what has just been committed there, at once."""

from __future__ import annotations

import asyncio
import logging
import os
import threading

from outbox.connections import current_settings, open_relay_source, open_relay_target
from outbox.errors import OutboxError
from outbox.relay.relay import Relay

_log = logging.getLogger("outbox.relay")


class RelayThread:
    """A thread with an event loop and connections of its own, started by the first commit and asleep between commits.

    It is a matter of latency only. When it cannot do its work, or the process ends before it has, any worker of the
    fleet does it.
    """

    def __init__(self, connection: str) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._committed: asyncio.Event | None = None
        self._thread: threading.Thread | None = None
        self._stopped = False

    def wake(self) -> None:
        """Jobs were committed. Never waits."""
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name=f"outbox-relay-{self._connection}", daemon=True)
                self._thread.start()
            self._ring()

    def stop(self) -> None:
        """Finish what is being moved, and end."""
        with self._lock:
            self._stopped = True
            self._ring()
            thread = self._thread
        if thread is not None:
            thread.join()

    def _ring(self) -> None:
        if self._loop is not None and self._committed is not None:
            self._loop.call_soon_threadsafe(self._committed.set)

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except OutboxError as error:
            _log.warning("jobs for %s are left to the workers to move on: %s", self._connection, error)

    async def _main(self) -> None:
        settings = current_settings()
        source, target = open_relay_source(settings), open_relay_target(settings, self._connection)
        relay = Relay(source, target, self._connection)
        committed = asyncio.Event()
        # What was committed while this thread was starting is found all the same.
        committed.set()
        with self._lock:
            self._loop, self._committed = asyncio.get_running_loop(), committed
        try:
            while True:
                await committed.wait()
                committed.clear()
                if self._stopped:
                    return
                await self._move_all(relay)
        finally:
            with self._lock:
                self._loop = None
            await source.close()
            await target.close()

    async def _move_all(self, relay: Relay) -> None:
        try:
            while await relay.move():
                pass
        except OutboxError as error:
            _log.warning("jobs for %s are left to the workers to move on: %s", self._connection, error)


class RelayThreads:
    """One for each connection that jobs are relayed to."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads: dict[str, RelayThread] = {}

    def wake(self, connection: str) -> None:
        with self._lock:
            thread = self._threads.setdefault(connection, RelayThread(connection))
        thread.wake()

    def stop(self) -> None:
        """End all of them. The next commit starts anew."""
        with self._lock:
            threads, self._threads = self._threads, {}
        for thread in threads.values():
            thread.stop()

    def _after_fork(self) -> None:
        """Threads exist only in the parent."""
        self.__init__()  # type: ignore[misc]


relay_threads = RelayThreads()
"""Those of this process."""

os.register_at_fork(after_in_child=relay_threads._after_fork)  # noqa: SLF001 - not for others to call
