"""Notifications of the kernel about writes to the files of a SQLite database (inotify, Linux only)."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

_READ_BYTES = 65_536
_UNRELIABLE_AFTER = 5

_log = logging.getLogger("outbox.wakeups")


class FileChanges:
    """Watches the database file and its write-ahead log. A write precedes the moment when its commit is visible.

    The kernel merges equal notifications that are not read, so a busy database costs nothing while no worker waits.
    """

    def __init__(self, path: Path) -> None:
        """
        Raises:
            OSError: this user has too many inotify instances, or the file cannot be watched.
            ImportError, RuntimeError: this operating system has no inotify.
        """
        # Only here: it loads ctypes and looks for the C library.
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
        """None if the file cannot be watched."""
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
    def unreliable(self) -> bool:
        """Whether several commits came without a notification, as on network file systems."""
        return self._missed >= _UNRELIABLE_AFTER

    def drain(self) -> bool:
        """Discard the notifications. Returns whether there were any."""
        found = False
        with suppress(BlockingIOError):
            while os.read(self.descriptor, _READ_BYTES):
                found = True
        if found:
            self._missed = 0
            self.follow()
        return found

    def committed(self) -> None:
        """Count a commit that was seen. Called after `drain`."""
        self._missed += 1

    def follow(self) -> None:
        """Watch files that were created since. A file that is watched already is not watched twice."""
        for path in self._paths:
            with suppress(OSError):
                self._inotify.add_watch(path, self._mask)

    def close(self) -> None:
        """Idempotent."""
        self._inotify.close()
