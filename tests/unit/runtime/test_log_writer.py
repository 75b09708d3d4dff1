"""The queue of log entries, and the thread that writes them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pytest

from outbox.runtime.reporting import log_writer
from outbox.runtime.reporting.log_writer import Entries, LogWriter


class Reader:
    """Keeps what was written. It can stand still, or fail."""

    def __init__(self) -> None:
        self.written: list[Any] = []
        self.reads = threading.Event()
        self.reads.set()
        self.stands_still = threading.Event()
        self.fails = False
        self.log = LogWriter(self._write, lambda count: Entries([f"{count} dropped"], 0.0))

    def _write(self, some: Sequence[Entries]) -> None:
        if not self.reads.is_set():
            self.stands_still.set()
            assert self.reads.wait(30)
        if self.fails:
            raise OSError("no space")
        self.written += [(entry, at) for entries, at in some for entry in entries]


def test_entries_are_written_in_their_order() -> None:
    reader = Reader()
    reader.log.put(["one", "two"], 1.0)
    reader.log.put(["three"], 2.0)
    assert reader.log.flush(30)
    assert reader.written == [("one", 1.0), ("two", 1.0), ("three", 2.0)]


def test_entries_that_find_no_room_are_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_writer, "MAX_WAITING", 10)
    reader = Reader()
    reader.reads.clear()
    reader.log.put(["first"], 0.0)
    assert reader.stands_still.wait(30)
    reader.log.put(range(8), 0.0)
    reader.log.put(range(8, 13), 0.0)
    reader.log.put(["last"], 0.0)
    assert reader.log.dropped == 4
    reader.reads.set()
    assert reader.log.flush(30)
    assert [entry for entry, _ in reader.written] == ["first", *range(10), "4 dropped"]
    assert reader.log.dropped == 0
    reader.log.put(range(10), 0.0)
    assert reader.log.flush(30)
    assert reader.log.dropped == 0, "there is room again"


def test_entries_that_cannot_be_written_are_counted_until_that_can_be_said() -> None:
    reader = Reader()
    reader.fails = True
    reader.log.put(["one", "two"], 0.0)
    assert reader.log.flush(30)
    reader.fails = False
    assert reader.log.dropped == 2
    reader.log.put(["three"], 0.0)
    assert reader.log.flush(30)
    assert [entry for entry, _ in reader.written] == ["three", "2 dropped"]
