"""How long this process stood still meanwhile: what a busy machine adds to the time that anything in it takes."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Self

_TICK = 0.01


class Standstills:
    """A thread that sleeps for a moment, again and again, and adds up by how much it is late."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="standstills")

    def _watch(self) -> None:
        begun = time.monotonic()
        while not self._over.wait(_TICK):
            now = time.monotonic()
            self.seconds += max(0.0, now - begun - _TICK)
            begun = now

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
