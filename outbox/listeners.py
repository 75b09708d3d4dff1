"""Hands events to the listeners of a client in a thread of their own, so that none delays a dispatch or a job."""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from collections import deque
from collections.abc import Sequence

from outbox.client_state import ClientPart, ClientState, current_client
from outbox.errors import ConfigurationError
from outbox.events import Event, Events, Listener

MOST_EVENTS = 10_000
"""Events that wait for listeners which are too slow. Later ones are dropped, and counted."""

FLUSH_SECONDS = 1.0
"""For which the end of a process waits until listeners have heard what they can."""

_log = logging.getLogger("outbox.events")


def listen(listener: Listener, *kinds: type[Event]) -> None:
    """As `outbox.Outbox.listen`, for the current client: by default, that of the process.

    Raises:
        ConfigurationError: as `outbox.Outbox.listen`.
    """
    current_client().part(Listeners).add(listener, kinds)


class Listeners(ClientPart):
    """The thread is started by the first event, and ends when the client is closed."""

    def __init__(self, client: ClientState | None = None) -> None:
        super().__init__(client)
        self._events = Events()
        self._start_anew()

    def _start_anew(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[Event] = deque()
        self._thread: threading.Thread | None = None
        self._idle = True
        self._stopping = False
        self._dropped = 0

    def add(self, listener: Listener, kinds: Sequence[type[Event]]) -> None:
        """
        Raises:
            ConfigurationError: ``listener`` is no plain function, or one of ``kinds`` is no class of events.
        """
        _check(listener, kinds)

        def hear(event: Event) -> None:
            try:
                listener(event)
            except BaseException:  # noqa: BLE001 - not even SystemExit of one listener silences the others
                _log.exception("a listener failed on %s", type(event).__name__)

        self._events.listen(hear, *kinds)
        if self.client.events is None:
            events = Events()
            events.listen_to_batches(self.put)
            self.client.events = events

    def put(self, events: Sequence[Event]) -> None:
        """Never waits for a listener, and raises nothing. From any thread."""
        with self._changed:
            room = MOST_EVENTS - len(self._waiting)
            self._waiting.extend(events[:room])
            self._dropped += max(0, len(events) - room)
            self._idle = False
            if self._thread is None:
                self._start()
            self._changed.notify_all()

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name="outbox-listeners", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            # The interpreter ends, and starts no thread.
            self._waiting.clear()
            self._idle = True
        else:
            self._thread = thread

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    self._idle = True
                    self._changed.notify_all()
                    if self._stopping:
                        return
                    self._changed.wait()
                event = self._waiting.popleft()
                dropped, self._dropped = self._dropped, 0
            if dropped:
                _log.warning("listeners are too slow: %d events were dropped", dropped)
            self._events.emit(event)

    def flush_at_exit(self) -> None:
        self._flush()

    def _flush(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._idle, FLUSH_SECONDS)

    def stop(self) -> None:
        """Hand over what waits, and end the thread. The next event starts it again."""
        with self._changed:
            self._stopping = True
            thread, self._thread = self._thread, None
            self._changed.notify_all()
        if thread is not None and thread is not threading.current_thread():
            thread.join(FLUSH_SECONDS)
        with self._changed:
            self._stopping = False

    async def close(self) -> None:
        await asyncio.to_thread(self.stop)

    def after_fork(self) -> None:
        self._start_anew()


def _check(listener: object, kinds: Sequence[object]) -> None:
    if not callable(listener):
        raise ConfigurationError(f"a listener is a function of an event, not {listener!r}")
    if inspect.iscoroutinefunction(listener) or inspect.iscoroutinefunction(getattr(listener, "__call__", None)):  # noqa: B004
        raise ConfigurationError(
            f"{getattr(listener, '__qualname__', listener)} is async def, and listeners run in a thread without an "
            "event loop: make it a plain `def`, which hands over to a loop with `call_soon_threadsafe`"
        )
    for kind in kinds:
        if not isinstance(kind, type) or not issubclass(kind, Event):
            raise ConfigurationError(f"a listener hears classes of outbox.events, and {kind!r} is none")
