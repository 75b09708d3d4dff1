"""The chain that a running job sees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic_core import from_json

from outbox.chains import chain_links
from outbox.client_state import current_keys
from outbox.encrypted_jobs import open_result
from outbox.encryption import MARK
from outbox.ids import JobId
from outbox.options import DispatchOptions
from outbox.policies.batch import BatchHeader
from outbox.policies.chain import ChainHeader, Link


class ChainSteps:
    """`ChainContext`, from the headers of the job."""

    __slots__ = ("_batch", "_connection", "_header", "rest")

    def __init__(self, header: ChainHeader, connection: str, batch: BatchHeader | None = None) -> None:
        self._header = header
        self._batch = batch
        self._connection = connection
        self.rest: tuple[Link, ...] = header.rest

    def undo(self) -> None:
        """The handler runs again in the same attempt: what it added is no longer wanted."""
        self.rest = self._header.rest

    @property
    def id(self) -> JobId:
        return self._header.id

    @property
    def number(self) -> int:
        return self._header.number

    @property
    def caught(self) -> bool:
        """Whether the job runs because the chain has failed."""
        return self._header.caught

    @property
    def remaining(self) -> int:
        return len(self.rest)

    @property
    def previous(self) -> Any:
        """
        Raises:
            DecryptionFailed: it is encrypted, and cannot be decrypted.
        """
        result = self._header.previous
        if result is None:
            return None
        if result.startswith(MARK):
            result = open_result(current_keys(), result, self.id, self.number - 1)
        return from_json(result)

    def prepend(self, *jobs: Any) -> None:
        self.rest = self._links(jobs, after=self.rest)

    def append(self, *jobs: Any) -> None:
        self.rest = self._links(jobs, before=self.rest)

    def _links(
        self, jobs: Sequence[Any], *, before: Sequence[Link] = (), after: Sequence[Link] = ()
    ) -> tuple[Link, ...]:
        options: DispatchOptions = {"connection": self._connection}
        if len(jobs) == 1 and isinstance(jobs[0], list | tuple):
            [jobs] = jobs
        return chain_links(jobs, self._connection, before=before, after=after, options=options, batch=self._batch)
