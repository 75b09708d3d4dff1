"""Where this process hears of committed jobs, whoever tells: its own dispatches, Redis, a binary log."""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Iterable
from weakref import ref

from outbox.wakeups.base import Wake, Wakeups


class LocalHub:
    """Knows, weakly, which `Wakeups` want to hear of which queue. Thread-safe.

    Connections are not told apart: a queue of the same name in another database gets a wake-up too many, which costs
    it one look.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listening: dict[str, tuple[ref[Wakeups], ...]] = {}

    @property
    def busy(self) -> bool:
        """Whether anybody listens."""
        return bool(self._listening)

    def listen(self, queues: Iterable[str], wakeups: Wakeups) -> None:
        """Wake ``wakeups`` whenever jobs of one of ``queues`` are committed, for as long as it exists."""
        with self._lock:
            for queue in queues:
                self._listening[queue] = (*self._living(queue), ref(wakeups))

    def forget(self, wakeups: Wakeups) -> None:
        with self._lock:
            for queue in list(self._listening):
                kept = tuple(each for each in self._living(queue) if each() is not wakeups)
                if kept:
                    self._listening[queue] = kept
                else:
                    del self._listening[queue]

    def notify(self, queues: Collection[str]) -> None:
        """Jobs of these queues were committed."""
        for queue in queues:
            for listener in self._listening.get(queue, ()):
                wakeups = listener()
                if wakeups is not None:
                    wakeups.wake(Wake.JOBS)

    def notify_all(self) -> None:
        """Something may have been committed that nobody heard of."""
        for listeners in list(self._listening.values()):
            for listener in listeners:
                wakeups = listener()
                if wakeups is not None:
                    wakeups.wake(Wake.MAYBE)

    def _living(self, queue: str) -> Iterable[ref[Wakeups]]:
        return (listener for listener in self._listening.get(queue, ()) if listener() is not None)

    def _after_fork(self) -> None:
        """Those who listen are on event loops of the parent."""
        self.__init__()  # type: ignore[misc]


local_hub = LocalHub()
"""The one of this process: dispatching code and workers have nothing else in common."""

os.register_at_fork(after_in_child=local_hub._after_fork)  # noqa: SLF001 - not for others to call
