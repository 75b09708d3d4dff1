"""``@schedule``: schedules that code declares beside the class of their job."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

from outbox.errors import ConfigurationError, InvalidOption
from outbox.job import Job
from outbox.policies.schedule import Definition, check_definition, check_name

JobType = TypeVar("JobType", bound=type[Job])


class Declaration(NamedTuple):
    """A schedule of a job class. The definition lacks its job, which depends on the settings."""

    name: str
    kind: type[Job]
    definition: Definition


_declared: dict[str, Declaration] = {}


def _fields(kind: type[Job]) -> dict[str, Any]:
    return kind.model_fields


def declarations() -> list[Declaration]:
    """All that were made in this process, by name."""
    return [_declared[name] for name in sorted(_declared)]


def schedule(
    when: str | None = None,
    *,
    every: str | timedelta | None = None,
    name: str | None = None,
    tz: str = "UTC",
    misfire: str = "once",
    grace: float | timedelta = 3600,
    overlap: str = "allow",
    jitter: float | timedelta = 0,
) -> Callable[[JobType], JobType]:
    """Have workers dispatch a job of the class at every tick of a schedule. Every field of the class needs a default.

    * ``when``: a crontab line of five fields (six with seconds first), or ``@hourly``, ``@daily``, ``@weekly``,
      ``@monthly``, ``@yearly``. Instead of it, ``every``: ``"90s"``, ``"5m"``, ``"2h"``, ``"1d"`` or a ``timedelta`` of
      whole seconds, 1 second to 366 days, counted from 1970
    * ``name``: 1 to 190 printable ASCII characters, default the job's name. A class can have several schedules
    * ``tz``: the time zone of the crontab line
    * ``misfire``: what becomes of ticks that no worker was there for: ``"once"`` runs the latest one if it is at most
      ``grace`` seconds late (0 to 366 days; a minute at least), ``"skip"`` none, ``"all"`` the last 100
    * ``overlap``: what a tick does while the job of an earlier one is not finished: ``"allow"`` runs both, and
      ``"skip"`` leaves the tick out. ``"queue_one"`` lets one job wait for the end of the running one. ``"cancel"``
      removes the earlier jobs
    * ``jitter``: each job waits 0 to so many seconds, at most a day

    Raises:
        ConfigurationError: on definition. A value is of a wrong type or out of its range, the line never ticks, or
            there is no such time zone. Or another class has a schedule of this name, or the class cannot be made
            without fields.
    """

    def declare(kind: JobType) -> JobType:
        where = f"@schedule of {getattr(kind, '__qualname__', kind)!s}"
        if not isinstance(kind, type) or not issubclass(kind, Job) or not callable(getattr(kind, "handle", None)):
            raise ConfigurationError(f"{where}: it decorates a Job class with a method `handle`")
        try:
            definition = check_definition(when, every, tz, misfire, grace, overlap, jitter)
            named = check_name(kind.name if name is None else name)
        except InvalidOption as error:
            raise ConfigurationError(f"{where}: {error}") from None
        required = [field for field, info in _fields(kind).items() if info.is_required()]
        if required:
            raise ConfigurationError(
                f"{where}: no worker knows its field `{required[0]}`: give it a default, or add a schedule for each "
                "value with outbox.schedules.add"
            )
        known = _declared.get(named)
        if known is not None and known.kind.name != kind.name:
            raise ConfigurationError(
                f"{where}: {known.kind.__qualname__} has a schedule of the name {named!r}: give one another `name`"
            )
        _declared[named] = Declaration(named, kind, definition)
        return kind

    return declare
