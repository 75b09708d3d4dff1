"""The batch that a running job sees."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from outbox.batch_members import add_members
from outbox.connections import is_relayed_to
from outbox.dispatch import nothing_serialized
from outbox.envelope import Envelope
from outbox.errors import InvalidOption
from outbox.ids import JobId
from outbox.job import Job
from outbox.options import DispatchOptions
from outbox.policies.batch import BatchHeader
from outbox.relay.route import to_relay_row


class BatchAdditions:
    """`BatchContext`: what it adds is inserted in the settlement of the attempt."""

    __slots__ = ("_connection", "_on_redis", "added", "id")

    def __init__(self, batch_id: JobId, connection: str, *, on_redis: bool) -> None:
        self.id = batch_id
        self.added: list[Envelope] = []
        self._connection = connection
        self._on_redis = on_redis

    def add(self, jobs: Iterable[Any] | Job, **options: Any) -> None:
        if self._on_redis:
            raise InvalidOption(
                "a job that runs on Redis adds to its batch from outside, with `outbox.add_to_batch`: its end is "
                "written in Redis, and the batch in the database"
            )
        serialized = nothing_serialized()
        members = [jobs] if isinstance(jobs, Job) else list(jobs)
        add_members(serialized, members, BatchHeader(id=self.id, inside=True), cast("DispatchOptions", options))
        settings = serialized.settings
        for name, envelopes in serialized.by_connection.items():
            if is_relayed_to(settings, name):
                self.added += [to_relay_row(envelope, name) for envelope in envelopes]
            elif name == self._connection:
                self.added += envelopes
            else:
                raise InvalidOption(
                    f"the batch is kept by {self._connection!r}, and {envelopes[0].name} is for {name!r}"
                )
