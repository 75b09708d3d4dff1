"""Wakes the idle workers of this process, for its own dispatches and for every `WakeupSource`."""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Iterable
from weakref import ref

from outbox.wakeups.base import Wake, Wakeups


class LocalHub:
    """Keeps weak references to the `Wakeups` of each queue. Thread-safe.

    It does not distinguish connections. Queues of the same name in two databases are both woken, which costs one probe.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listening: dict[str, tuple[ref[Wakeups], ...]] = {}

    @property
    def busy(self) -> bool:
        """Whether a worker of this process listens."""
        return bool(self._listening)

    def listen(self, queues: Iterable[str], wakeups: Wakeups) -> None:
        """Wake ``wakeups`` when jobs of these queues are committed, as long as it is referenced elsewhere."""
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
        """Jobs of any queue may have been committed."""
        for listeners in list(self._listening.values()):
            for listener in listeners:
                wakeups = listener()
                if wakeups is not None:
                    wakeups.wake(Wake.MAYBE)

    def _living(self, queue: str) -> Iterable[ref[Wakeups]]:
        return (listener for listener in self._listening.get(queue, ()) if listener() is not None)

    def after_fork(self) -> None:
        """The listeners belong to event loops of the parent process."""
        self.__init__()  # type: ignore[misc]


local_hub = LocalHub()
"""The hub of this process. Dispatching code and workers share nothing else."""

os.register_at_fork(after_in_child=local_hub.after_fork)
