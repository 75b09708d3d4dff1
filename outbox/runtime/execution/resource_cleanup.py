"""Closes resources of jobs whose attempts have ended."""

from __future__ import annotations

import asyncio

from outbox.events import Events, ResourceFailed
from outbox.middleware.resources import JobResources
from outbox.runtime.execution.attempt import Attempt
from outbox.runtime.execution.protected_task import protected_task
from outbox.runtime.slots import Slots
from outbox.settlement import Failure

_LONGEST = 30.0
"""Seconds that the resources of one job may take."""


class ResourceCleanup:
    """It occupies a slot, so that slow cleanup delays the next claim rather than piling up."""

    def __init__(self, slots: Slots, events: Events) -> None:
        self._slots = slots
        self._events = events
        self._tasks: set[asyncio.Task[None]] = set()

    def close(self, attempt: Attempt, resources: JobResources) -> None:
        self._slots.occupy()
        task = protected_task(self._run(attempt, resources), name=f"{attempt.claim.name} resources")
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def _run(self, attempt: Attempt, resources: JobResources) -> None:
        try:
            async with asyncio.timeout(_LONGEST):
                await resources.close()
        except BaseException as error:  # noqa: BLE001 - code of the application cannot end the worker
            self._events.emit(attempt.event(ResourceFailed, Failure.of(error)))

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._slots.release()
