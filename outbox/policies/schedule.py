"""Schedules: which ticks of one that is due become jobs, and what they do about jobs of earlier ticks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from itertools import islice
from typing import Any, NamedTuple, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from outbox.errors import InvalidOption, InvalidPayload
from outbox.policies.timetable import Timetable, parse_timetable

MOST_TICKS = 100
"""That ``misfire="all"`` makes up for: the latest ones."""
ON_TIME = timedelta(seconds=60)
"""A tick that is later than this was missed: no worker looked."""
LONGEST_GRACE = 366 * 86_400.0
LONGEST_JITTER = 86_400.0
"""Seconds."""
LONGEST_NAME = 190

Chosen = TypeVar("Chosen", bound=StrEnum)


class Misfire(StrEnum):
    """What becomes of ticks that were missed."""

    ONCE = "once"
    SKIP = "skip"
    ALL = "all"


class Overlap(StrEnum):
    """What a tick does while the job of an earlier one is not finished."""

    ALLOW = "allow"
    SKIP = "skip"
    QUEUE_ONE = "queue_one"
    CANCEL = "cancel"


class Due(NamedTuple):
    """Ticks that become jobs, in their order, and when the schedule is due again: never, if None."""

    ticks: tuple[datetime, ...]
    next_at: datetime | None
    missed: datetime | None = None
    """The latest tick, if it is too late for it."""


def due(timetable: Timetable, next_at: datetime, now: datetime, misfire: Misfire, grace: float = 3600.0) -> Due:
    """What to do about a schedule that is due at ``next_at``, at the time ``now``.

    ``once`` runs the latest tick that was missed, up to ``grace`` seconds late. ``skip`` runs none that was missed.
    ``all`` runs them all, 100 at most. A tick on time runs whatever was missed before it.
    """
    if next_at > now:
        return Due((), next_at)
    latest = timetable.until(now)
    following = timetable.after(now)
    if latest is None or latest < next_at:  # the timetable has changed since
        return Due((), following)
    if misfire is Misfire.ALL:
        # At the end, so that a long time of standing still costs no more than a short one.
        ticks = tuple(reversed(list(islice(_back_from(timetable, latest, next_at), MOST_TICKS))))
        return Due(ticks, following)
    allowed = ON_TIME if misfire is Misfire.SKIP else max(ON_TIME, timedelta(seconds=grace))
    return Due((latest,), following) if now - latest <= allowed else Due((), following, latest)


def _back_from(timetable: Timetable, latest: datetime, first: datetime) -> Iterator[datetime]:
    tick: datetime | None = latest
    while tick is not None and tick >= first:
        yield tick
        tick = timetable.until(tick - timedelta(microseconds=1))


class TickAction(StrEnum):
    INSERT = "insert"
    INSERT_PARKED = "insert_parked"
    """Behind the job that runs."""
    CANCEL_AND_INSERT = "cancel_and_insert"
    SKIP = "skip"


def on_overlap(overlap: Overlap, *, waiting: bool, running: bool) -> TickAction:
    """``waiting`` says whether the job of an earlier tick has not started, ``running`` whether one has, and is not
    finished: one between two attempts runs."""
    if overlap is Overlap.ALLOW or not (waiting or running):
        return TickAction.INSERT
    if overlap is Overlap.CANCEL:
        return TickAction.CANCEL_AND_INSERT
    if overlap is Overlap.QUEUE_ONE and not waiting:
        return TickAction.INSERT_PARKED
    return TickAction.SKIP


def jitter(name: str, tick: datetime, most: float) -> timedelta:
    """From 0 to ``most`` seconds, the same for every worker, and whenever a transaction is tried again."""
    digest = hashlib.sha256(f"{name}\0{tick.astimezone(UTC).isoformat()}".encode()).digest()
    return timedelta(seconds=most * int.from_bytes(digest[:8]) / 2**64)


class Tick(BaseModel):
    """What the headers of a scheduled job say."""

    model_config = ConfigDict(frozen=True)

    schedule: str
    at: AwareDatetime
    previous: AwareDatetime | None = None
    """The tick before that became a job."""
    queues: bool = False
    """Whether the end of the job lets a parked one of the schedule run."""


class JobTemplate(BaseModel):
    """The job of a schedule, as it is inserted but for what differs from tick to tick."""

    model_config = ConfigDict(frozen=True)

    name: str
    queue: str
    priority: int
    payload: str
    headers: str
    policies: int


class Definition(BaseModel):
    """All of a schedule but its name and its state. `check_definition` makes one of what callers give."""

    model_config = ConfigDict(frozen=True)

    when: str
    tz: str
    misfire: Misfire
    grace: float
    overlap: Overlap
    jitter: float
    connection: str = ""
    """That the job is dispatched to."""
    job: JobTemplate | None = None

    @property
    def timetable(self) -> Timetable:
        return _timetable(self.when, self.tz)

    def hash(self, name: str) -> str:
        """What a declared schedule is known by. Payload and headers may differ from one worker to the next."""
        job = None if self.job is None else [self.job.name, self.job.queue, self.job.priority]
        text = json.dumps([name, self.model_dump(mode="json", exclude={"job"}), job], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def dump(self) -> str:
        return self.model_dump_json()

    @classmethod
    def load(cls, text: str) -> Definition:
        """
        Raises:
            InvalidPayload: the text is not what `dump` writes.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise InvalidPayload(f"the definition of the schedule cannot be read: {error}") from error


@lru_cache(maxsize=1_000)
def _timetable(when: str, tz: str) -> Timetable:
    return parse_timetable(when, tz)


def check_definition(when: Any, every: Any, tz: Any, misfire: Any, grace: Any, overlap: Any, jitter: Any) -> Definition:
    """A definition without its job.

    Raises:
        InvalidOption: a value is of a wrong type or out of its range; the message says which.
    """
    if (when is None) == (every is None):
        raise InvalidOption("a schedule takes a crontab line or a name such as @daily, or every='90s': one of them")
    text = when if every is None else _period(every)
    parse_timetable(text, tz)
    return Definition(
        when=text,
        tz=tz,
        misfire=_one_of(Misfire, "misfire", misfire),
        grace=_seconds("grace", grace, LONGEST_GRACE),
        overlap=_one_of(Overlap, "overlap", overlap),
        jitter=_seconds("jitter", jitter, LONGEST_JITTER),
    )


def _period(every: object) -> str:
    if isinstance(every, timedelta):
        if every.microseconds:
            raise InvalidOption(f"every is whole seconds, not {every!r}")
        return f"{every.days * 86_400 + every.seconds}s"
    if not isinstance(every, str) or not every[:-1].isdigit() or every[-1] not in "smhd":
        raise InvalidOption(f"every is a text such as '90s', '5m', '2h' or '1d', or a timedelta, not {every!r}")
    return every


def _one_of(kind: type[Chosen], name: str, value: object) -> Chosen:
    try:
        return kind(value)  # type: ignore[arg-type]
    except ValueError:
        raise InvalidOption(f"{name} is one of {', '.join(map(repr, map(str, kind)))}, not {value!r}") from None


def _seconds(name: str, value: object, most: float) -> float:
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= most:
        raise InvalidOption(f"{name} is a number of seconds from 0 to {most:,.0f}, not {value!r}")
    return float(seconds)


def check_name(name: object) -> str:
    """
    Raises:
        InvalidOption: it is no name of a schedule.
    """
    if not isinstance(name, str) or not 1 <= len(name) <= LONGEST_NAME or not name.isascii() or not name.isprintable():
        raise InvalidOption(
            f"a schedule's name is 1 to {LONGEST_NAME} printable ASCII characters, not {str(name)[:LONGEST_NAME]!r}"
        )
    if name != name.strip():
        # To MySQL, names that differ by spaces at their ends are the same.
        raise InvalidOption(f"a schedule's name begins and ends without a space, not {name!r}")
    return name
