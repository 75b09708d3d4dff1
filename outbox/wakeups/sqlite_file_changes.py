"""The kernel's notifications of writes to the files of one SQLite database (inotify: Linux)."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

_READ_BYTES = 65_536
_DEAF_AFTER = 5

_log = logging.getLogger("outbox.wakeups")


class FileChanges:
    """Tells that the database file or its write-ahead log was written to. That comes before the commit can be seen.

    The kernel merges equal notifications that were not read, so that a busy database costs nothing while nobody waits.
    """

    def __init__(self, path: Path) -> None:
        """
        Raises:
            OSError: there are no notifications: too many in use by this user, or not for this file.
            ImportError, RuntimeError: there are none on this operating system.
        """
        # Only here: it loads ctypes and looks for the C library, and no other process needs it.
        from inotify_simple import INotify, flags

        self._paths = [path, path.with_name(f"{path.name}-wal")]
        self._mask = flags.MODIFY
        self._inotify: Any = INotify(nonblocking=True)
        self._missed = 0
        try:
            self._inotify.add_watch(path, self._mask)
            self.follow()
        except BaseException:
            self._inotify.close()
            raise

    @classmethod
    def of(cls, path: Path) -> FileChanges | None:
        """None where there are no notifications."""
        try:
            return cls(path)
        except (OSError, ImportError, RuntimeError, AttributeError) as error:
            _log.debug("no notifications of changes of %s: %s", path, error)
            return None

    @property
    def descriptor(self) -> int:
        """Readable when there are notifications."""
        return int(self._inotify.fileno())

    @property
    def deaf(self) -> bool:
        """Whether commits were seen repeatedly of which the kernel has not told: it does not for some file systems."""
        return self._missed >= _DEAF_AFTER

    def drain(self) -> bool:
        """Forget the notifications that came, and return whether there were any."""
        heard = False
        with suppress(BlockingIOError):
            while os.read(self.descriptor, _READ_BYTES):
                heard = True
        if heard:
            self._missed = 0
            self.follow()
        return heard

    def committed(self) -> None:
        """A commit was seen. Called after `drain`."""
        self._missed += 1

    def follow(self) -> None:
        """Watch files that have come into being since. Those that are watched already are not watched twice."""
        for path in self._paths:
            with suppress(OSError):
                self._inotify.add_watch(path, self._mask)

    def close(self) -> None:
        """Harmless when repeated."""
        self._inotify.close()
