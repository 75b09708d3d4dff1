"""Chains: jobs that run one after the other. What is left of a chain travels in the headers of its next job."""

from __future__ import annotations

from typing import Annotated, Any, Protocol

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import from_json

from outbox.ids import JobId

MOST_LINKS = 1_000
RESULT_LIMIT = 64 * 1024
"""Bytes of the result of a job, as JSON."""


def _checked_json(text: str) -> str:
    """What no JSON column takes could not be inserted at the end of the job before."""
    if text != "{}":
        from_json(text)
    return text


class Link(BaseModel):
    """A job that is not in its queue yet: an envelope without an id."""

    model_config = ConfigDict(frozen=True)

    queue: Annotated[str, Field(max_length=64)]
    name: Annotated[str, Field(max_length=255)]
    priority: Annotated[int, Field(ge=0, le=9)]
    payload: Annotated[str, AfterValidator(_checked_json)]
    headers: Annotated[str, AfterValidator(_checked_json)] = "{}"
    bits: Annotated[int, Field(ge=0, le=65_535)] | None = None
    """Of its policies."""
    id: JobId | None = None
    """Of an encrypted job, whose payload belongs to this id."""


class ChainHeader(BaseModel):
    """What a job of a chain knows of it."""

    model_config = ConfigDict(frozen=True)

    id: JobId
    """The id of its first job."""
    number: int = 1
    """The place of this job, from 1."""
    rest: tuple[Link, ...] = ()
    catch: Link | None = None
    caught: bool = False
    """Whether the job is the ``catch`` of a chain that has failed."""
    previous: str | None = None
    """The result of the job before, as JSON text, or encrypted: a JSON column bounds how deep its own values may be."""


class ChainContext(Protocol):
    """The rest of the chain that a running job is in. What it adds counts if this attempt succeeds."""

    @property
    def id(self) -> JobId:
        """The id of the first job of the chain."""

    @property
    def number(self) -> int:
        """The place of this job, from 1."""

    @property
    def remaining(self) -> int:
        """How many jobs come after this one."""

    @property
    def previous(self) -> Any:
        """`JobContext.previous`."""

    def prepend(self, *jobs: Any) -> None:
        """Add ``jobs``, or those of one list, right after this one, in their order.

        Raises:
            DispatchError: as `outbox.dispatch_chain`.
        """

    def append(self, *jobs: Any) -> None:
        """Add ``jobs`` at the end of the chain, with the same errors."""
