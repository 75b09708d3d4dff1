"""What the threads of aiosqlite do, which logs each function that it runs in one."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def before_each_call(note: Callable[[int], None]) -> Iterator[None]:
    """``note`` is called with the id of the thread, and in it, before each function that runs there."""
    logger = logging.getLogger("aiosqlite")

    def noting(record: logging.LogRecord) -> bool:
        if record.msg.startswith("executing"):
            note(threading.get_ident())
        return record.levelno > logging.DEBUG

    level = logger.level
    logger.addFilter(noting)
    logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeFilter(noting)
