"""The lifespan of a worker: what its jobs share is made before the first one, and closed after the last one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack

from outbox.errors import ConfigurationError
from outbox.job import Job
from outbox.registry import load_function
from outbox.resources import Lifespan, Resources

_log = logging.getLogger("outbox.runtime")


class LifespanService:
    """Entered and left in the task of the worker."""

    def __init__(
        self, lifespan: str | Lifespan | None, resources: Resources, job_classes: Callable[[], Sequence[type[Job]]]
    ) -> None:
        """``job_classes`` are those whose jobs this worker is there for.

        Raises:
            ConfigurationError: a reference is not ``module:function``, or cannot be imported.
        """
        found = load_function(lifespan, "--lifespan") if isinstance(lifespan, str) else lifespan
        if found is not None and not callable(found):
            raise ConfigurationError(f"a lifespan is a function of the worker's resources, not {found!r}")
        self._lifespan: Lifespan | None = found
        self._resources = resources
        self._job_classes = job_classes
        self._stack: AsyncExitStack | None = None

    async def start(self) -> None:
        """
        Raises:
            ConfigurationError: the lifespan is no async context manager, or does not provide what jobs ask for.
            BaseException: whatever the lifespan raises.
        """
        if self._stack is not None:
            return
        self._stack = AsyncExitStack()
        if self._lifespan is not None:
            entered = self._lifespan(self._resources)
            if not hasattr(entered, "__aenter__"):
                raise ConfigurationError(
                    "a lifespan returns an async context manager: decorate the generator with "
                    "`contextlib.asynccontextmanager`"
                )
            await self._stack.enter_async_context(entered)
        self._resources.check(self._job_classes())

    async def stop(self) -> None:
        if self._stack is None:
            return
        try:
            await self._stack.aclose()
        except Exception:  # noqa: BLE001 - the jobs have ended, and the worker ends as it was going to
            _log.exception("the lifespan of the worker raised when it was left")
