"""Resources: what the lifespan of a worker provides, and ``handle`` of a job asks for by its annotations."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal, NamedTuple

from outbox.errors import ConfigurationError
from outbox.handler_parameters import resource_types

Scope = Literal["worker", "job"]
_SCOPES = ("worker", "job")


class Provider(NamedTuple):
    """Where a resource comes from."""

    value: Any
    """The resource, or what makes it for each job."""
    per_job: bool = False
    takes_job: bool = False


class Resources:
    """What a worker's lifespan provides, by type."""

    def __init__(self, values: Mapping[Any, Any] | None = None) -> None:
        """``values`` are resources of the scope ``"worker"``, by their types."""
        self._providers: dict[Any, Provider] = {}
        for kind, value in (values or {}).items():
            self.provide(kind, value)

    def provide(self, kind: Any, value: Any, *, scope: Scope = "worker") -> None:
        """Fill parameters of ``handle`` that are annotated with ``kind``.

        With the scope ``"worker"``, all jobs get ``value`` itself. With ``"job"``, ``value`` is called for each job: a
        function, a coroutine function, or a generator of either kind that yields once. It takes the job or nothing, and
        runs on the event loop. What follows the ``yield`` runs when the end of the attempt has been written.

        Raises:
            ConfigurationError: ``kind`` is provided already, the scope is another, or ``value`` cannot be called so.
        """
        if scope not in _SCOPES:
            raise ConfigurationError(f"the scope of a resource is 'worker' or 'job', not {scope!r}")
        if kind in self._providers:
            raise ConfigurationError(f"{named(kind)} is provided already: provide each type once")
        self._providers[kind] = Provider(value) if scope == "worker" else _per_job(kind, value)

    def provider(self, kind: Any) -> Provider | None:
        return self._providers.get(kind)

    def missing(self, job_class: type) -> str | None:
        """What nothing provides of the resources that a job class asks for; None where nothing is missing.

        Raises:
            ConfigurationError: an annotation of its ``handle`` cannot be resolved.
        """
        for name, kind in resource_types(job_class).items():
            if kind not in self._providers:
                return (
                    f"nothing provides `{name}: {named(kind)}` of {job_class.__module__}.{job_class.__qualname__}."
                    "handle: provide it in the lifespan of the worker (`--lifespan MODULE:FUNCTION`)"
                )
        return None

    def check(self, job_classes: Iterable[type], otherwise: str = "") -> None:
        """``otherwise`` ends the message: another way to provide it.

        Raises:
            ConfigurationError: one of the job classes asks for what nothing provides.
        """
        problems = [problem for each in job_classes if (problem := self.missing(each)) is not None]
        if problems:
            raise ConfigurationError("; ".join(problems) + otherwise)


Lifespan = Callable[[Resources], AbstractAsyncContextManager[Any]]
"""Called with the resources of a worker when it starts; left when its last job has ended."""


def named(kind: Any) -> str:
    module = getattr(kind, "__module__", None)
    return f"{module}.{kind.__qualname__}" if module and hasattr(kind, "__qualname__") else str(kind)


def _per_job(kind: Any, function: Any) -> Provider:
    if not callable(function):
        raise ConfigurationError(
            f"{named(kind)}: a resource of the scope 'job' is made by a function, not {function!r}"
        )
    signature = inspect.signature(function)
    for arguments in ((), (None,)):
        try:
            signature.bind(*arguments)
        except TypeError:
            continue
        return Provider(function, per_job=True, takes_job=bool(arguments))
    raise ConfigurationError(f"{named(kind)}: what makes a resource is called with the job, or with nothing")
