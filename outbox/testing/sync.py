"""`perform` and `drain` for tests that are not async. `fake` and `travel` of `outbox.testing` need no counterpart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from outbox.client_state import current_client
from outbox.dispatch import AnySession
from outbox.job import Job
from outbox.options import DispatchOptions
from outbox.resources import Resources
from outbox.sync.loops import SyncLoops
from outbox.testing import draining, performing
from outbox.testing.performing import Performed

__all__ = ["drain", "perform"]


def perform(
    job: Job,
    *,
    attempt: int = 1,
    resources: Mapping[Any, Any] | Resources | None = None,
    **options: Unpack[DispatchOptions],
) -> Performed:
    """`outbox.testing.perform`. It blocks until the attempt has ended."""
    return (
        current_client()
        .part(SyncLoops)
        .run(lambda: performing.perform(job, attempt=attempt, resources=resources, **options))
    )


def drain(
    *,
    session: AnySession | None = None,
    connection: str | None = None,
    queue: str | Sequence[str] | None = None,
    at_most: int = 1_000,
    resources: Mapping[Any, Any] | Resources | None = None,
) -> list[Performed]:
    """`outbox.testing.drain`. It blocks until no job is due; with a sync session, in this thread."""
    return (
        current_client()
        .part(SyncLoops)
        .run(
            lambda: draining.drain(
                session=session, connection=connection, queue=queue, at_most=at_most, resources=resources
            )
        )
    )


class Drain:
    """`outbox.testing.drain` as the fixture ``outbox_drain``, and ``sync`` for tests that are not async."""

    async def __call__(self, **options: Any) -> list[Performed]:
        return await draining.drain(**options)

    def sync(self, **options: Any) -> list[Performed]:
        return drain(**options)
