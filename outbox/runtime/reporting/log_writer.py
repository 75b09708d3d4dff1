"""Writes log entries in a thread of its own, so that a reader that does not read stops nothing but the log."""

from __future__ import annotations

import fcntl
import os
import queue
import select
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, TextIO

MAX_WAITING = 10_000
"""Entries that may wait to be written. What comes after them is dropped, and counted."""

_BATCH = 500
_FLUSH_WITHIN = 1.0
_POLL_MILLISECONDS = 1_000


class Entries(NamedTuple):
    """Log entries that were made together. An object for each of them would cost every job some time."""

    entries: Sequence[Any]
    at: float
    """When, in seconds since 1970."""


Write = Callable[[Sequence[Entries]], None]


class LogWriter:
    """A bounded queue and the daemon thread that empties it.

    ``write`` is called in the thread with entries in the order in which they were put. Whatever it raises drops them.
    ``dropped`` makes the entry that says how many were dropped; it is written as soon as anything can be.
    """

    def __init__(self, write: Write, dropped: Callable[[int], Entries]) -> None:
        self._write = write
        self._dropped_entry = dropped
        # Its put is reentrant: a signal handler may log while the same thread is putting something.
        self._queue: queue.SimpleQueue[Entries | threading.Event] = queue.SimpleQueue()
        self._waiting = 0
        """Entries in the queue."""
        self._lock = threading.RLock()
        self._dropped = 0
        self._thread: threading.Thread | None = None
        os.register_at_fork(after_in_child=self._forked)

    @property
    def dropped(self) -> int:
        """Entries that were dropped and not reported in the log yet."""
        return self._dropped

    def put(self, entries: Sequence[Any], at: float) -> None:
        """Queue entries without waiting. Those that find no room are dropped. ``at`` is seconds since 1970."""
        with self._lock:
            room = max(0, MAX_WAITING - self._waiting)
            if len(entries) > room:
                self._dropped += len(entries) - room
                entries = entries[:room]
            self._waiting += len(entries)
            if entries:
                self._queue.put(Entries(entries, at))
        if self._thread is None and not self._start():
            self._write_waiting()

    def flush(self, seconds: float = _FLUSH_WITHIN) -> bool:
        """Wait until all that was put before is written, for ``seconds`` at most. Returns whether it is."""
        if self._thread is None:
            return True
        written = threading.Event()
        self._queue.put(written)
        return written.wait(seconds)

    def _start(self) -> bool:
        """Returns whether the thread runs. An interpreter that is about to end starts no threads."""
        with self._lock:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="outbox-log", daemon=True)
                try:
                    thread.start()
                except RuntimeError:
                    return False
                self._thread = thread
            return True

    def _write_waiting(self) -> None:
        """Write in the caller's thread what waits."""
        with suppress(queue.Empty):
            while True:
                self._write_some([self._queue.get_nowait()])

    def _forked(self) -> None:
        """The child of a job's fork has no thread, and must not repeat what the parent is about to write."""
        self._queue, self._lock, self._thread = queue.SimpleQueue(), threading.RLock(), None
        self._waiting = self._dropped = 0

    def _run(self) -> None:
        while True:
            taken = [self._queue.get()]
            with suppress(queue.Empty):
                while len(taken) < _BATCH:
                    taken.append(self._queue.get_nowait())
            self._write_some(taken)

    def _write_some(self, taken: Sequence[Entries | threading.Event]) -> None:
        """An event among them is set when what came before it is written."""
        some = [each for each in taken if isinstance(each, Entries)]
        count, dropped = sum(len(each.entries) for each in some), self._dropped
        with self._lock:
            # A signal handler may have put something while the same thread was counting.
            self._waiting = max(0, self._waiting - count)
        try:
            if some or dropped:
                self._write([*some, self._dropped_entry(dropped)] if dropped else some)
        except BaseException:  # noqa: BLE001 - a log that cannot be written stops nothing, and is tried again
            self._drop(count)
        else:
            self._drop(-dropped)
        for each in taken:
            if isinstance(each, threading.Event):
                each.set()

    def _drop(self, count: int) -> None:
        with self._lock:
            self._dropped += count


class Stream:
    """The file behind a text stream, under a descriptor of its own: jobs may close, replace and redirect theirs."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._descriptor: int | None = None
        self.is_terminal = False
        if stream is None:
            return
        with suppress(OSError, ValueError):
            self.is_terminal = stream.isatty()
        with suppress(OSError, ValueError):
            self._descriptor = fcntl.fcntl(stream.fileno(), fcntl.F_DUPFD_CLOEXEC, 10)

    def write(self, text: str) -> None:
        """
        Raises:
            OSError: it cannot be written, or not all of it.
        """
        if self._descriptor is not None:
            self._write_bytes(self._descriptor, text.encode("utf-8", "backslashreplace"))
        elif self._stream is not None:
            self._stream.write(text)
            self._stream.flush()

    def _write_bytes(self, descriptor: int, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(descriptor, view) :]
            except BlockingIOError:
                # Another program that shares the file made it non-blocking.
                poll = select.poll()
                poll.register(descriptor, select.POLLOUT)
                poll.poll(_POLL_MILLISECONDS)
