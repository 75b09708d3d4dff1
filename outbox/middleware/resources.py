"""Fills the parameters of ``handle`` with resources of the worker, and closes those of one job after its end."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from outbox.errors import MissingResource
from outbox.handler_parameters import resource_types

if TYPE_CHECKING:
    from outbox.job import Job
    from outbox.middleware.results import Handler, HandlerResult
    from outbox.resources import Provider, Resources
    from outbox.runtime.execution.attempt import Attempt

Close = Callable[["Attempt", "JobResources"], None]
"""Closes the resources of an attempt, whose handler and whose settlement have ended."""


def link(call_next: Handler, kind: type[Job], resources: Resources, close: Close) -> Handler:
    """A job class whose ``handle`` takes no resource has no link.

    Raises:
        MissingResource: nothing provides one of them.
    """
    wanted = resource_types(kind)
    if not wanted:
        return call_next
    problem = resources.missing(kind)
    if problem is not None:
        raise MissingResource(problem)
    providers = {name: provider for name, each in wanted.items() if (provider := resources.provider(each)) is not None}
    shared = {name: provider.value for name, provider in providers.items() if not provider.per_job}
    made = {name: provider for name, provider in providers.items() if provider.per_job}

    async def fill(attempt: Attempt) -> HandlerResult:
        attempt.arguments = dict(shared)
        if made:
            attempt.resources = opened = JobResources(attempt, close)
            for name, provider in made.items():
                attempt.arguments[name] = await opened.make(provider)
        return await call_next(attempt)

    return fill


class JobResources:
    """The resources of one attempt. They are closed once its handler has ended and its end has been written, or cannot
    be written any more."""

    def __init__(self, attempt: Attempt, close: Close) -> None:
        self._attempt = attempt
        self._close = close
        self._generators: list[Any] = []
        self._handler_ended = self._settled = self._closing = False

    async def make(self, provider: Provider) -> Any:
        made = provider.value(self._attempt.job) if provider.takes_job else provider.value()
        if inspect.isasyncgen(made):
            return self._yielded(made, await anext(made, _NOTHING))
        if inspect.isgenerator(made):
            return self._yielded(made, next(made, _NOTHING))
        return await made if inspect.isawaitable(made) else made

    def _yielded(self, generator: Any, value: Any) -> Any:
        if value is _NOTHING:
            raise RuntimeError(_NONE)
        self._generators.append(generator)
        return value

    def handler_ended(self) -> None:
        self._handler_ended = True
        self._close_if_over()

    def settled(self) -> None:
        """Its end is in the store, or this process writes nothing about it any more."""
        self._settled = True
        self._close_if_over()

    def _close_if_over(self) -> None:
        if self._handler_ended and self._settled and not self._closing:
            self._closing = True
            if self._generators:
                self._close(self._attempt, self)

    async def close(self) -> None:
        """Let each generator go on after its ``yield``, the last one first, whatever the others raise.

        Raises:
            BaseExceptionGroup: what they have raised.
        """
        errors: list[BaseException] = []
        while self._generators:
            try:
                await _finish(self._generators.pop())
            except BaseException as error:  # noqa: BLE001 - the others are closed as well
                errors.append(error)
        if errors:
            raise BaseExceptionGroup("resources of a job were not closed", errors)


_NOTHING = object()
_NONE = "a resource of a job is made by a generator that yields once, and it has yielded nothing"
_MORE = "a resource of a job is made by a generator that yields once, and it yields again"


async def _finish(generator: Any) -> None:
    if inspect.isasyncgen(generator):
        try:
            await anext(generator)
        except StopAsyncIteration:
            return
        await generator.aclose()
    else:
        try:
            next(generator)
        except StopIteration:
            return
        generator.close()
    raise RuntimeError(_MORE)
