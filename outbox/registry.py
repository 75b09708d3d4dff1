"""The job classes by the names under which their rows are stored.

A row names its class; only what is registered here can be made from it. Nothing is ever imported or unpickled
because a row says so.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

from outbox.errors import ConfigurationError, UnknownJob

if TYPE_CHECKING:
    from outbox.job import Job

_classes: dict[str, type[Job]] = {}


def register(job_class: type[Job]) -> None:
    """Make ``job_class`` known under its name and its aliases.

    Raises:
        ConfigurationError: another class already has one of these names.
    """
    for name in (job_class.name, *job_class.aliases):
        known = _classes.get(name)
        if known is not None and not _same_definition(known, job_class):
            raise ConfigurationError(
                f"two job classes are named {name!r}: {known.__module__}.{known.__qualname__} and "
                f"{job_class.__module__}.{job_class.__qualname__}; give one of them another `name`"
            )
    for name in (job_class.name, *job_class.aliases):
        _classes[name] = job_class


def _same_definition(one: type[Job], other: type[Job]) -> bool:
    """A module that is imported again, or a class made again by the same line, replaces itself."""
    return (one.__module__, one.__qualname__) == (other.__module__, other.__qualname__)


def resolve(name: str) -> type[Job]:
    """The class registered under ``name``.

    Raises:
        UnknownJob: there is none; the message says how to make it known.
    """
    try:
        return _classes[name]
    except KeyError:
        raise UnknownJob(
            f"no job class is registered as {name!r}: import its module (OUTBOX_JOBS), or add the name to the "
            "`aliases` of the class that took its place"
        ) from None


def is_registered(name: str) -> bool:
    """Whether a class is known under this name or alias."""
    return name in _classes


def registered() -> dict[str, type[Job]]:
    """Every registered name with its class, aliases included."""
    return dict(_classes)


def import_jobs(modules: Iterable[str]) -> None:
    """Import ``modules`` so that the job classes in them register.

    Raises:
        ConfigurationError: a module cannot be imported; the message names it and the reason.
    """
    for module in modules:
        try:
            importlib.import_module(module)
        except (Exception, SystemExit) as error:
            raise ConfigurationError(
                f"OUTBOX_JOBS names the module {module!r}, which cannot be imported: {import_failure(error)}"
            ) from error


def import_failure(error: BaseException) -> str:
    """Why a module cannot be imported. A script without a ``__main__`` guard ends whatever imports it."""
    if isinstance(error, SystemExit):
        return f"it calls sys.exit({'' if error.code is None else repr(error.code)})"
    return f"{type(error).__name__}: {error}"
