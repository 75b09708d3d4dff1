"""Job ids: UUID version 7, RFC 9562, so that ids sort by the time at which they were made."""

from __future__ import annotations

import os
import threading
import time
from uuid import UUID

JobId = UUID
"""What ``dispatch`` returns: known before anything is written, the same on every connection."""

_COUNTER_BITS = 74
_COUNTER_MAX = (1 << _COUNTER_BITS) - 1
# A fresh millisecond starts in the lower half of the counter, so that it cannot run over within that millisecond.
_SEED_BITS = _COUNTER_BITS - 1


class _Sequence:
    """Ids that only grow, within one process (RFC 9562, 6.2, method 2: the random part is a counter)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._millisecond = 0
        self._counter = 0

    def forget(self) -> None:
        """After a fork: start anew, with a lock that nobody holds."""
        self.__init__()  # type: ignore[misc]

    def next(self) -> UUID:
        with self._lock:
            millisecond = time.time_ns() // 1_000_000
            if millisecond > self._millisecond:
                self._millisecond = millisecond
                self._counter = int.from_bytes(os.urandom(10), "big") >> (80 - _SEED_BITS)
            elif self._counter < _COUNTER_MAX:
                # A random step keeps two processes with the same seed apart and the next id hard to guess.
                self._counter = min(_COUNTER_MAX, self._counter + 1 + int.from_bytes(os.urandom(4), "big"))
            else:
                self._millisecond += 1
                self._counter = 0
            high, low = self._counter >> 62, self._counter & ((1 << 62) - 1)
            return UUID(int=self._millisecond << 80 | 0x7 << 76 | high << 64 | 0b10 << 62 | low)


_sequence = _Sequence()
os.register_at_fork(after_in_child=_sequence.forget)


def new_job_id() -> JobId:
    """A new id, greater than every id this process made before, even if the wall clock was set back."""
    return _sequence.next()


def new_token() -> bytes:
    """A claim token: 16 random bytes, never used before."""
    return os.urandom(16)
