"""The bits of policies, and how a job class declares one."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntFlag
from typing import Any, NamedTuple

from pydantic import BaseModel


class Policies(IntFlag):
    """Which policies a job has: the column ``policies`` of its row, which is NULL for a job without any."""

    UNIQUE = 1
    KEY = 2
    RATE = 4
    CHAIN = 8
    BATCH = 16
    SCHEDULE = 32


class Declaration(NamedTuple):
    """A policy of a job class under the options of one dispatch."""

    policy: Policies
    header: str
    """The field of `Headers` that keeps what the policy needs to know of a job."""
    value: Callable[[Any, bytes], BaseModel]
    """Makes the header of one job from the job and its payload."""
    delay: float | None = None
    """Seconds for which the job waits where its dispatch says nothing else."""


def chosen(kind: type, options: Any, name: str) -> Any:
    """The value of an option: that of the dispatch, else that of the class."""
    dispatched = getattr(options, name)
    return getattr(kind, name) if dispatched is None else dispatched
