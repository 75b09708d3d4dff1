"""A clock that is ahead: what the database takes for *now* in this process."""

from __future__ import annotations

from datetime import timedelta

from outbox.drivers.database.dialects import MYSQL, SQLITE
from outbox.testing.block import Block

_FARTHEST = timedelta(days=3_650)


class Clock:
    """How far this process is ahead of its databases. Their clocks go on, and they decide what is due, as ever.

    A process has one clock, for all of its threads and clients. Other processes, and jobs on Redis, have no part in it.
    """

    def __init__(self) -> None:
        self._ahead = timedelta()

    @property
    def ahead(self) -> timedelta:
        return self._ahead

    def travel(self, by: timedelta | None = None, **units: float) -> None:
        """Go ``by`` this much farther: a ``timedelta``, or its arguments, as in ``travel(hours=1, minutes=30)``.

        Raises:
            TypeError: nothing was given, or what is no argument of ``timedelta``.
            ValueError: that would be more than ten years ahead or back.
        """
        if (by is None) is not bool(units):
            raise TypeError("travel takes a timedelta, or its arguments: travel(hours=1)")
        self._set(self._ahead + (timedelta(**units) if by is None else by))

    def reset(self) -> None:
        """Return to the clock of the database."""
        self._set(timedelta())

    def _set(self, ahead: timedelta) -> None:
        if abs(ahead) > _FARTHEST:
            raise ValueError(f"a clock can be put {_FARTHEST.days:,} days ahead or back at most, not {ahead}")
        self._ahead = ahead
        for dialect in (MYSQL, SQLITE):
            dialect.travel(ahead // timedelta(microseconds=1))


clock = Clock()


class travel(Block):  # noqa: N801 - a function to its users
    """In the block, this process is ahead of its databases, by a ``timedelta`` or its arguments: ``hours=1``.

    Delays become due, leases run out, and jobs that are dispatched are due from then on. A block in a block goes
    farther. As a decorator, of coroutine functions as well, it is a block around each call.

    Raises:
        TypeError, ValueError: as `Clock.travel`, when the block is entered.
    """

    def __init__(self, by: timedelta | None = None, **units: float) -> None:
        self._by, self._units = by, units
        self._before: list[timedelta] = []

    def __enter__(self) -> None:
        before = clock.ahead
        clock.travel(self._by, **self._units)
        self._before.append(before)

    def __exit__(self, *_: object) -> None:
        clock.travel(self._before.pop() - clock.ahead)

    def again(self) -> travel:
        return travel(self._by, **self._units)
