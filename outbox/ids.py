"""Job ids: UUID version 7, RFC 9562, so that ids sort by the time at which they were made."""

from __future__ import annotations

import os
import threading
import time
from typing import Any, ClassVar
from uuid import UUID, SafeUUID

from pydantic_core import core_schema

ID_BYTES = 16
"""Of a stored id."""


class JobId(UUID):
    """Known before anything is written, the same on every connection."""

    __slots__ = ()
    created: ClassVar[bool] = True
    """Of what a dispatch returns: whether it has made the job. False where a unique job has met one of the same key:
    the id is that of the other. False as well where ``dispatch_if`` has kept it from being made: no job has the id."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        """A field of this type takes what a field of type ``UUID`` takes."""
        return core_schema.no_info_after_validator_function(_of_uuid, handler(UUID))


def _of_uuid(value: UUID) -> JobId:
    return value if isinstance(value, JobId) else JobId(int=value.int)


_set_number, _set_safety = vars(UUID)["int"].__set__, vars(UUID)["is_safe"].__set__
_UNKNOWN = SafeUUID.unknown


def _numbered(number: int) -> JobId:
    """As ``JobId(int=number)``, in a quarter of the time."""
    made = JobId.__new__(JobId)
    _set_number(made, number)
    _set_safety(made, _UNKNOWN)
    return made


def stored_job_id(stored: bytes) -> JobId:
    """The id that a store holds as 16 bytes: every claimed job passes here, and `UUID` asks what it is given."""
    return _numbered(int.from_bytes(stored))


class _MetJobId(JobId):
    __slots__ = ()
    created: ClassVar[bool] = False

    def __repr__(self) -> str:
        return f"JobId({str(self)!r})"


def met(job_id: UUID) -> JobId:
    """The id that a dispatch returns which has met the job ``job_id``."""
    return _MetJobId(int=job_id.int)


_COUNTER_BITS = 74
_COUNTER_MAX = (1 << _COUNTER_BITS) - 1
# A fresh millisecond starts in the lower half of the counter, so that it cannot run over within that millisecond.
_SEED_BITS = _COUNTER_BITS - 1
_SEED_BYTES = 10
# The counter is split by the two bits that say which variant of a UUID this is.
_LOW_BITS = 62
_LOW_MASK = (1 << _LOW_BITS) - 1


class IdSequence:
    """Ids that only grow, within one process (RFC 9562, 6.2, method 2: the random part is a counter).

    The first id is greater than that of ``counter`` (0 to 2**74 - 1) in ``millisecond`` (since 1970).
    """

    def __init__(self, millisecond: int = 0, counter: int = 0) -> None:
        self._lock = threading.Lock()
        self._millisecond = millisecond
        self._counter = counter

    def forget(self) -> None:
        """After a fork: start anew, with a lock that no thread holds."""
        self.__init__()  # type: ignore[misc]

    def take(self, count: int) -> list[JobId]:
        # In one call, because each is one to the system.
        random = memoryview(os.urandom(_SEED_BYTES + 4 * count))
        # A random step keeps two processes with the same seed apart and the next id hard to guess.
        steps = random[_SEED_BYTES:].cast("I")
        numbers: list[int] = []
        with self._lock:
            millisecond, counter = time.time_ns() // 1_000_000, self._counter
            if millisecond > self._millisecond:
                counter = int.from_bytes(random[:_SEED_BYTES]) >> (8 * _SEED_BYTES - _SEED_BITS)
            else:
                millisecond = self._millisecond
            for step in steps:
                counter += 1 + step
                if counter > _COUNTER_MAX:
                    millisecond, counter = millisecond + 1, step
                numbers.append(
                    millisecond << 80 | 0x7 << 76 | counter >> _LOW_BITS << 64 | 0b10 << _LOW_BITS | counter & _LOW_MASK
                )
            self._millisecond, self._counter = millisecond, counter
        return list(map(_numbered, numbers))


_sequence = IdSequence()
os.register_at_fork(after_in_child=_sequence.forget)


def new_job_id() -> JobId:
    """A new id, greater than every id this process made before, even if the wall clock was set back."""
    return _sequence.take(1)[0]


def new_job_ids(count: int) -> list[JobId]:
    """So many new ids, in their order."""
    return _sequence.take(count)


def new_token() -> bytes:
    """A claim token: 16 random bytes, never used before."""
    return os.urandom(16)


def made_at(job_id: UUID) -> float:
    """When an id was made, in seconds since 1970 by the clock of the machine that made it."""
    return (job_id.int >> 80) / 1000
