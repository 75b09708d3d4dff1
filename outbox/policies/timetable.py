"""When schedules tick: crontab lines by the clock of a time zone, and periods.

A tick is an aware datetime in UTC. What is decided depends on the timetable and on the time that is given, only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from outbox.errors import InvalidOption

LONGEST_LINE = 255
"""Characters of a crontab line."""

_NAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
}
_EVERY = re.compile(r"(\d{1,9})([smhd])")
_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_LONGEST_PERIOD = 366 * 86_400
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Timetable(Protocol):
    def after(self, moment: datetime) -> datetime | None:
        """The first tick after ``moment``; None if there is none within 50 years."""

    def until(self, moment: datetime) -> datetime | None:
        """The last tick that is not after ``moment``; None if there was none within 50 years."""

    def words(self) -> str:
        """For people: ``At 07:00 on Monday through Friday, Europe/Berlin``."""


def ticks_between(timetable: Timetable, first: datetime, last: datetime, most: int) -> list[datetime]:
    """The first ticks from ``first`` to ``last``, up to ``most``. ``first`` is any moment: no tick is before 1970."""
    ticks: list[datetime] = []
    first = max(first, _EPOCH)
    tick = timetable.after(first - timedelta(microseconds=1)) if first <= last else None
    while tick is not None and tick <= last and len(ticks) < most:
        ticks.append(tick)
        tick = timetable.after(tick)
    return ticks


class Cron:
    """A crontab line of five fields, or six with seconds first, by the clock of a time zone.

    Summer time is that of Debian's cron. A line with fixed minutes and hours ticks once a day: at the end of an hour
    that is left out, and in the first of two hours of the same name. One with ``*`` in its minutes or hours goes by the
    time that passes. CronSim counts whole hours. Where the clock changes by half an hour (Lord Howe), such a line may
    tick at another time on that day.

    Raises:
        InvalidOption: it is no crontab line, never ticks, or there is no such time zone.
    """

    def __init__(self, line: str, tz: str = "UTC") -> None:
        if len(line) > LONGEST_LINE:
            raise InvalidOption(f"a crontab line has at most {LONGEST_LINE} characters, not {len(line):,}")
        self.line = _NAMES.get(line, line)
        self.zone = _zone(tz)
        try:
            simulated = CronSim(self.line, _EPOCH)
            self._words = simulated.explain()
            never = next(simulated, None) is None
        except CronSimError as error:
            if "day-of-month" in str(error):
                raise InvalidOption(f"the crontab line {line!r} never ticks: there is no such day") from error
            raise _no_line(line, error) from error
        except (ValueError, IndexError, KeyError) as error:
            raise _no_line(line, error) from error
        if never:
            raise InvalidOption(f"the crontab line {line!r} never ticks: there is no such day")

    def after(self, moment: datetime) -> datetime | None:
        # CronSim counts by the clock on the wall. In the second of two hours of the same name it begins with ticks of
        # the first. Two ticks of an hour that is left out are one.
        ticks = (tick.astimezone(UTC) for tick in CronSim(self.line, moment.astimezone(self.zone)))
        return next((tick for tick in ticks if tick > moment), None)

    def until(self, moment: datetime) -> datetime | None:
        # Its ticks lie on whole seconds, and it returns those before the moment that it is given.
        start = (moment + timedelta(seconds=1)).replace(microsecond=0).astimezone(self.zone)
        ticks = (tick.astimezone(UTC) for tick in CronSim(self.line, start, reverse=True))
        found = next((tick for tick in ticks if tick <= moment), None)
        while found is not None and (later := self.after(found)) is not None and later <= moment:
            found = later
        return found

    def words(self) -> str:
        return f"{self._words}, {self.zone.key}"


def _no_line(line: str, error: Exception) -> InvalidOption:
    return InvalidOption(
        f"{line!r} is no crontab line such as '0 7 * * mon-fri', no name such as @daily, and no period such as 90s: "
        f"{error}"
    )


def _zone(tz: object) -> ZoneInfo:
    if not isinstance(tz, str) or not tz or len(tz) > 64:
        raise InvalidOption(f"tz is the name of a time zone such as 'Europe/Berlin', not {str(tz)[:64]!r}")
    try:
        return ZoneInfo(tz)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise InvalidOption(
            f"there is no time zone {tz!r}: tz is a name such as 'Europe/Berlin' (systems without zones need the "
            "package tzdata)"
        ) from error


@dataclass(frozen=True, slots=True)
class Every:
    """A tick every ``seconds``, from 1 to 366 days, counted from 1970: a worker that starts late changes nothing.

    Raises:
        InvalidOption: another number.
    """

    seconds: int

    def __post_init__(self) -> None:
        if not 1 <= self.seconds <= _LONGEST_PERIOD:
            raise InvalidOption(f"a period is 1 second to 366 days, not {self.seconds} s")

    @classmethod
    def parse(cls, text: str) -> Every | None:
        """``90s``, ``5m``, ``2h``, ``1d``; None for another text.

        Raises:
            InvalidOption: the period is too short or too long.
        """
        match = _EVERY.fullmatch(text)
        return None if match is None else cls(int(match[1]) * _UNITS[match[2]])

    def until(self, moment: datetime) -> datetime:
        return _EPOCH + (moment - _EPOCH) // timedelta(seconds=self.seconds) * timedelta(seconds=self.seconds)

    def after(self, moment: datetime) -> datetime:
        return self.until(moment) + timedelta(seconds=self.seconds)

    def words(self) -> str:
        unit = next(unit for unit in reversed(_UNITS) if self.seconds % _UNITS[unit] == 0)
        count, name = self.seconds // _UNITS[unit], {"s": "second", "m": "minute", "h": "hour", "d": "day"}[unit]
        return f"Every {name}" if count == 1 else f"Every {count} {name}s"


def parse_timetable(when: object, tz: object = "UTC") -> Timetable:
    """A crontab line, a name such as ``@daily``, or a period such as ``90s``.

    Raises:
        InvalidOption: it is none of these, it never ticks, or there is no such time zone.
    """
    if not isinstance(when, str) or not when:
        raise InvalidOption(
            f"a schedule is a crontab line, a name such as @daily, or a period such as 90s, not {when!r}"
        )
    zone = _zone(tz)
    return Every.parse(when) or Cron(when, zone.key)
