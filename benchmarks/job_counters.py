"""How many jobs have run, counted by their handlers in a file that the benchmark reads meanwhile.

A file is mapped into memory by the one process that writes it: counting costs a tenth of a microsecond, and what was
counted outlives the process.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_COUNT, _FIRST, _LAST, _DELAYS = range(4)
_NUMBERS = 8
_ROOM = 100_000
"""Delays that a file holds; later ones replace the earliest."""

_BYTES_PER_NUMBER = 8

VARIABLE = "OUTBOX_BENCH_COUNTERS"
"""The environment variable with the directory of the counters of one measurement."""


class Counters:
    """The counts of this process. Times are those of the machine's monotonic clock, the same in every process."""

    def __init__(self, directory: Path) -> None:
        size = (_NUMBERS + _ROOM) * _BYTES_PER_NUMBER
        with (directory / str(os.getpid())).open("w+b") as file:
            file.truncate(size)
            self._numbers = memoryview(mmap.mmap(file.fileno(), size)).cast("d")

    def count(self) -> None:
        """One more job has run."""
        numbers = self._numbers
        now = time.monotonic()
        if not numbers[_COUNT]:
            numbers[_FIRST] = now
        numbers[_LAST] = now
        numbers[_COUNT] += 1

    def delay(self, seconds: float) -> None:
        """One waited for so long."""
        numbers = self._numbers
        numbers[_NUMBERS + int(numbers[_DELAYS]) % _ROOM] = seconds
        numbers[_DELAYS] += 1


@cache
def mine() -> Counters:
    """That of this process, made when its first job runs."""
    return Counters(Path(os.environ[VARIABLE]))


@dataclass(frozen=True, slots=True)
class Total:
    """What all processes of a measurement have counted so far."""

    count: int
    first: float
    last: float
    delays: tuple[float, ...]

    @property
    def rate(self) -> float:
        """Jobs per second between the first handler and the last."""
        return (self.count - 1) / (self.last - self.first) if self.last > self.first else 0.0


def counted(directory: Path) -> int:
    """How many jobs have run, read from the first bytes of each file."""
    count = 0
    for path in directory.iterdir():
        with path.open("rb") as file:
            data = file.read(_BYTES_PER_NUMBER)
        if len(data) == _BYTES_PER_NUMBER:
            count += int(memoryview(data).cast("d")[_COUNT])
    return count


def total(directory: Path) -> Total:
    counter_files = [numbers for numbers in _counter_files(directory) if numbers[_COUNT]]
    return Total(
        sum(int(numbers[_COUNT]) for numbers in counter_files),
        min((numbers[_FIRST] for numbers in counter_files), default=0.0),
        max((numbers[_LAST] for numbers in counter_files), default=0.0),
        tuple(delay for numbers in counter_files for delay in _delays(numbers)),
    )


def _counter_files(directory: Path) -> Iterator[memoryview[float]]:
    for file in directory.iterdir():
        data = file.read_bytes()
        if len(data) == (_NUMBERS + _ROOM) * _BYTES_PER_NUMBER:
            yield memoryview(data).cast("d")


def _delays(numbers: memoryview[float]) -> list[float]:
    return list(numbers[_NUMBERS : _NUMBERS + min(int(numbers[_DELAYS]), _ROOM)])
