"""Batches: jobs that run in any order, and what follows when all of them have ended."""

from __future__ import annotations

import math
from collections.abc import Iterable
from enum import IntFlag
from typing import Annotated, Any, Protocol

from pydantic import BaseModel, ConfigDict, Field

from outbox.errors import InvalidOption
from outbox.ids import JobId
from outbox.policies.chain import Link

LONGEST_NAME = 100

AllowedFailures = bool | int | str


class FollowUp(BaseModel):
    """A job that is inserted at the end of a batch, under an id that was chosen with the batch."""

    model_config = ConfigDict(frozen=True)

    id: JobId
    job: Link


class Ran(IntFlag):
    """Which of its follow-ups a batch has inserted: each at most once, also where a retry reopens it."""

    THEN = 1
    CATCH = 2
    FINALLY = 4


class BatchPlan(BaseModel):
    """What is written of a batch with its first job."""

    model_config = ConfigDict(frozen=True)

    name: str = ""
    total: int
    allow_failures: Annotated[str, Field(pattern=r"^(all|[0-9]+|[0-9.e+-]+%)$")] = "0"
    """As `check_allowed` returns it."""
    then: FollowUp | None = None
    catch: FollowUp | None = None
    finally_: FollowUp | None = None
    parent: JobId | None = None
    """The batch that this one is a member of."""


class BatchHeader(BaseModel):
    """What a member knows of its batch."""

    model_config = ConfigDict(frozen=True)

    id: JobId
    plans: dict[str, BatchPlan] | None = None
    """With the first job of a dispatch: the batches that are made with it, by id."""
    inside: bool = False
    """It is added by a member, which keeps the batch open."""
    in_chain: bool = False
    """It is a later job of a chain that is one member: it takes the place of the job before."""


def check_allowed(allowed: AllowedFailures) -> str:
    """``"0"``, ``"3"``, ``"5%"`` or ``"all"``.

    Raises:
        InvalidOption: it is none of them.
    """
    if isinstance(allowed, bool):
        return "all" if allowed else "0"
    if isinstance(allowed, int) and allowed >= 0:
        return str(allowed)
    if isinstance(allowed, str) and allowed.endswith("%"):
        try:
            share = float(allowed[:-1])
        except ValueError:
            share = math.nan
        if 0 <= share <= 100:
            return f"{share:g}%"
    raise InvalidOption(
        f"allow_failures is a number of jobs, a share such as '5%', or True for any number, not {allowed!r}"
    )


def is_over(failed: int, total: int, allowed: str) -> bool:
    """Whether more members have failed than the batch allows."""
    if allowed == "all":
        return False
    if allowed.endswith("%"):
        return failed * 100 > float(allowed[:-1]) * total
    return failed > int(allowed)


def check_name(name: object) -> str:
    if not isinstance(name, str) or len(name) > LONGEST_NAME or not name.isprintable() or not name.isascii():
        raise InvalidOption(f"the name of a batch is up to {LONGEST_NAME} printable ASCII characters, not {name!r}")
    return name


class BatchContext(Protocol):
    """The batch that a running job is in. What it adds enters the batch if this attempt succeeds."""

    @property
    def id(self) -> JobId:
        """The id of the batch."""

    def add(self, jobs: Iterable[Any] | Any, **options: Any) -> None:
        """Add ``jobs``, or one job, to the batch, in the settlement of this attempt. A list among them is a chain.
        ``options`` are those of a dispatch.

        Raises:
            DispatchError: as `outbox.dispatch_batch`.
        """
