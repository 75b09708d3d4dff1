"""What belongs to one client in a process: its settings, its listeners, and the parts that it opens when needed.

`outbox.Outbox` is the public face of a `ClientState`. Functions without a client use the current one, which a context
variable holds: that of the process, unless `Outbox.use` has set another.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar, cast
from weakref import WeakSet

from outbox.at_exit import at_exit
from outbox.encryption import Keyring, keyring
from outbox.envelope import Envelope
from outbox.events import Events
from outbox.instruments import Instrument
from outbox.settings import Settings

# What a dispatch depends on. Settings are read again when one of these changes, and not at every dispatch: that takes a
# millisecond.
_FOLLOWED = (
    "DATABASE_URL", "QUEUE_CONNECTION", "REDIS_URL", "OUTBOX_PAYLOAD_LIMIT", "OUTBOX_ENCRYPTION_KEYS",
    "OUTBOX_INBOX_KEEP",
)  # fmt: skip
_FOLLOWED_KEYS = tuple(map(os.environ.encodekey, _FOLLOWED))


def _environment() -> dict[Any, Any]:
    """The environment as it is kept. Asking ``os.environ`` for what is not set takes ten times as long."""
    return os.environ._data  # type: ignore[attr-defined, no-any-return]  # noqa: SLF001


class ClientPart:
    """A resource of a client, made when it is first asked for: connections, threads, event loops."""

    def __init__(self, client: ClientState | None = None) -> None:
        self.client = client or default_client

    def after_fork(self) -> None:
        """Start anew in a forked child. What is open belongs to the parent."""

    def flush_at_exit(self) -> None:
        """Wait for what follows a commit, for a moment. The interpreter ends; this is called twice."""

    def close_at_exit(self) -> None:
        """Close what is open. The interpreter ends."""

    async def close(self) -> None:
        """Close what is open. It is opened again when needed."""


Part = TypeVar("Part", bound=ClientPart)


class DispatchRecorder(Protocol):
    """What a test puts in place of the stores."""

    def record(self, by_connection: Mapping[str, Sequence[Envelope]], session: Any | None) -> None:
        """Jobs were dispatched, in the sync ``Session`` ``session`` or without one.

        Raises:
            SessionUnusable: the session cannot carry a job.
        """


class ClientState:
    """The settings and the parts of one client. Thread-safe.

    With ``settings`` they are fixed. Without, they are those of the environment, with what `configure` was given.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.events: Events | None = None
        """What listeners of this client hear; None while there is none, so that a dispatch has one comparison."""
        self.instruments: tuple[Instrument, ...] = ()
        """What surrounds the dispatches of this client, and the handlers of workers that it starts afterwards."""
        self.recorder: DispatchRecorder | None = None
        """What dispatched jobs are handed to in a test, instead of being written."""
        self._fixed = settings
        self._given: dict[str, Any] = {}
        self._settings: Settings | None = None
        self._read_from: tuple[Any, ...] = ()
        self._lock = threading.Lock()
        self._parts: dict[type[ClientPart], ClientPart] = {}
        _clients.add(self)

    def settings(self) -> Settings:
        """
        Raises:
            ConfigurationError: a value is wrong.
        """
        if self._fixed is not None:
            return self._fixed
        environment = tuple(map(_environment().get, _FOLLOWED_KEYS))
        if self._settings is None or environment != self._read_from:
            self._settings = Settings.load(**self._given)
            self._read_from = environment
        return self._settings

    def configure(self, given: dict[str, Any]) -> Settings:
        """
        Raises:
            ConfigurationError: a value is wrong. Then nothing changes.
        """
        settings = Settings.load(**given)
        if self._fixed is not None:
            self._fixed = settings
        self._given, self._settings = given, None
        return self.settings()

    def part(self, kind: type[Part]) -> Part:
        """The client's part of this kind, made when it is first asked for."""
        part = self._parts.get(kind)
        if part is None:
            with self._lock:
                part = self._parts.setdefault(kind, kind(self))
        return cast("Part", part)

    def around(self, inner: ClientState) -> ClientState:
        """What is used in a block of the client ``inner`` while this one is the current client. A fake stays one."""
        return inner

    def parts(self) -> list[ClientPart]:
        """Those that there are, the last one made first."""
        return list(reversed(self._parts.values()))

    def _after_fork(self) -> None:
        self._lock = threading.Lock()
        for part in self._parts.values():
            part.after_fork()


_clients: WeakSet[ClientState] = WeakSet()
default_client = ClientState()
"""The client of the process: what `outbox.dispatch` uses unless another is set."""

_current: ContextVar[ClientState] = ContextVar("outbox_client", default=default_client)
current_client = _current.get
enter_client = _current.set
leave_client = _current.reset


def configure(**given: Any) -> Settings:
    """Set settings from code: ``configure(database_url=…)``. They go before the environment; a later call replaces
    them, and one without arguments returns to the environment. In the block of a client, they are that client's.

    Raises:
        ConfigurationError: a value is wrong.
    """
    return current_client().configure(given)


def current_settings() -> Settings:
    """The settings that ``dispatch`` goes by.

    Raises:
        ConfigurationError: a value is wrong.
    """
    return current_client().settings()


def current_keys() -> Keyring:
    """The keys of encrypted jobs.

    Raises:
        ConfigurationError: a value is wrong.
    """
    return keyring(current_settings().encryption_keys)


def _after_fork() -> None:
    for client in list(_clients):
        client._after_fork()  # noqa: SLF001 - of the same module


def _flush_at_exit() -> None:
    for client in list(_clients):
        for part in client.parts():
            part.flush_at_exit()


def _close_at_exit() -> None:
    for client in list(_clients):
        for part in client.parts():
            part.close_at_exit()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_close_at_exit)
at_exit(_flush_at_exit)
