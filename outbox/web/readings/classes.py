"""Job classes: those that this process knows, and those that workers have run lately."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from outbox import registry
from outbox.errors import ConfigurationError, JobNotFound, UnknownJob
from outbox.job import Job
from outbox.options import CLASS_OPTIONS, OPTIONS
from outbox.web.readings.source import Source, Subject
from outbox.web.readings.trends import TrendReadings
from outbox.web.stores import WebStores
from outbox.web.trends import Trend
from outbox.web.values import Answers


@dataclass(frozen=True, slots=True)
class ClassRow:
    """A class of jobs by its name, as stored, and what workers of a connection have done with its jobs."""

    connection: str
    name: str
    queues: tuple[str, ...]
    """Those in which its jobs ran; where none has, that of the class."""
    trend: Trend


class ClassReadings(Subject):
    def __init__(self, source: Source, trends: TrendReadings) -> None:
        super().__init__(source)
        self._trends = trends

    async def all(self) -> Answers[list[ClassRow]]:
        """
        Raises:
            OutboxError: no connection answers.
        """
        answers = await self._trends.all()
        if answers.errors and not answers.found:
            raise next(iter(answers.errors.values()))
        return Answers(_rows_of(self.stores, answers.found), answers.errors)

    async def get(self, connection: str, name: str) -> ClassRow:
        """
        Raises:
            JobNotFound: no such class is known here, and none has run in the last day.
        """
        kind, trend = class_of(self.stores, name), await self._trends.of(connection)
        if kind is None and name not in trend.names:
            raise JobNotFound(f"there is no job class {name[:100]!r} here, and none has run in the last day")
        return _row_of(connection, name, kind, trend)


def _known_classes(stores: WebStores) -> dict[str, type[Job]]:
    """By their names; without aliases. Where a module of ``OUTBOX_JOBS`` cannot be imported, those that are there."""
    with stores.as_client():
        # The health page names the module.
        with suppress(ConfigurationError):
            registry.import_jobs(stores.settings.jobs)
        return {name: kind for name, kind in registry.registered().items() if kind.name == name}


def class_of(stores: WebStores, name: str) -> type[Job] | None:
    """The class of this name or alias."""
    _known_classes(stores)
    try:
        return registry.resolve(name)
    except UnknownJob:
        return None


def _rows_of(stores: WebStores, trends: dict[str, Trend]) -> list[ClassRow]:
    """By connection and name. Known classes that have not run are those of the connection that they name."""
    known = _known_classes(stores)
    homes = {name: kind.connection or stores.settings.connection for name, kind in known.items()}
    found: list[ClassRow] = []
    for connection, trend in trends.items():
        own = {name for name, home in homes.items() if home == connection}
        found += [_row_of(connection, name, known.get(name), trend) for name in sorted({*trend.names, *own})]
    return found


def _row_of(connection: str, name: str, kind: type[Job] | None, trend: Trend) -> ClassRow:
    own = trend.of(name=name)
    queues = sorted({point.queue for point in own.day}) or ([] if kind is None else [kind.queue])
    return ClassRow(connection, name, tuple(queues), own)


def options_of(kind: type[Job]) -> list[tuple[str, str]]:
    """The options that a class sets or that have a default, with their values in words."""
    shown = []
    for name in CLASS_OPTIONS:
        value = getattr(kind, name)
        if value is not None and (value != OPTIONS[name].default or name in ("queue", "priority")):
            shown.append((name, _in_words(value)))
    return shown


def _in_words(value: Any) -> str:
    if callable(value):
        return "a method of the class"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return str(value)
