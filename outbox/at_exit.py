"""The end of the interpreter: what threads of outbox's own are doing for a commit gets a moment to be done."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable
from contextlib import suppress


def at_exit(wait: Callable[[], None]) -> None:
    """Call ``wait`` twice, because other threads may go on after the main one: when that ends, and when all have.

    The first comes before executors are shut down, in which event loops resolve the names of hosts.
    """
    # What was registered last is called first. The name is private; and once the main thread has ended, nothing more is
    # taken.
    with suppress(AttributeError, RuntimeError):
        import concurrent.futures.thread  # noqa: F401 - registers its own end, if it has not

        threading._register_atexit(wait)  # type: ignore[attr-defined]  # noqa: SLF001
    atexit.register(wait)
