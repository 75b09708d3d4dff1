"""What is checked of a job's class once in a dispatch: whether a worker could run its jobs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from outbox import registry
from outbox.connections import connection_settings
from outbox.errors import InvalidJob, InvalidOption
from outbox.handler_parameters import takes_session
from outbox.job import Job
from outbox.job_definition import generator_method
from outbox.options import JobOptions
from outbox.settings import DATABASE, Settings

T = TypeVar("T")


def several(jobs: Iterable[T]) -> Iterable[T]:
    """``jobs``, if they are not one job: that can be iterated as well, over the names and values of its fields.

    Raises:
        InvalidJob: they are one job.
    """
    if type(jobs) not in (tuple, list) and isinstance(jobs, Job):
        raise InvalidJob(f"{jobs.name}: several jobs are dispatched here, and this is one: put it into a list")
    return jobs


def check_class(kind: type[Job], options: JobOptions, settings: Settings, connection: str) -> None:
    """
    Raises:
        InvalidJob: no worker of the connection ``connection`` can run jobs of this class.
        InvalidOption: the connection cannot keep a completed job.
        ConfigurationError: there is no such connection.
    """
    _check_runnable(kind)
    if connection_settings(settings, connection).driver != DATABASE:
        _check_needs_no_database(kind, options, connection)


def _check_runnable(kind: type[Job]) -> None:
    reason = registry.unreachable(kind)
    if reason is not None:
        raise InvalidJob(f"{kind.name} cannot be run by a worker: {reason}")
    generator = generator_method(kind)
    if generator is not None:
        raise InvalidJob(f"{kind.name}: `{generator}` is a generator, and nothing in it would run: remove its `yield`")


def _check_needs_no_database(kind: type[Job], options: JobOptions, name: str) -> None:
    if takes_session(kind):
        raise InvalidJob(
            f"{kind.name}: `handle` takes a session, and the connection {name!r} is not a database: dispatch it to a "
            "connection on a database, or let `handle` open a session itself"
        )
    if kind.keep_for if options.keep_for is None else options.keep_for:
        raise InvalidOption(
            f"{kind.name}: keep_for keeps a job in the database that has it, and the connection {name!r} is none: "
            "dispatch it to a connection on a database, or with keep_for=0"
        )
