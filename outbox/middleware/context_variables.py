"""A shipped middleware: context variables for the code that a job calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from outbox.errors import ConfigurationError

if TYPE_CHECKING:
    from outbox.job import CallNext, Middleware


def context_variables(values: Mapping[ContextVar[Any], str | Callable[[Any], Any]]) -> Middleware:
    """A middleware of jobs that sets context variables while ``handle`` runs, also in the thread of a plain ``def``.

    Each variable gets the value of a field of the job, or what a function of the job returns. What a function raises is
    the failure of the attempt, and so is a field that the job does not have.

    Raises:
        ConfigurationError: a key is no context variable, or a value is neither a field's name nor a function.
    """
    for variable, source in values.items():
        if not isinstance(variable, ContextVar) or not (isinstance(source, str) or callable(source)):
            raise ConfigurationError(
                "context_variables takes context variables, each with the name of a field or a function of the job, "
                f"not {variable!r}: {source!r}"
            )

    async def set_variables(job: Any, call_next: CallNext) -> Any:
        found = {
            variable: getattr(job, source) if isinstance(source, str) else source(job)
            for variable, source in values.items()
        }
        tokens = [(variable, variable.set(value)) for variable, value in found.items()]
        try:
            return await call_next(job)
        finally:
            for variable, token in reversed(tokens):
                variable.reset(token)

    return set_variables
