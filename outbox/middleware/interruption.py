"""Why a handler is told to stop."""

from __future__ import annotations

from enum import Enum


class Interruption(Enum):
    """Decides how the attempt ends."""

    TIMEOUT = "its timeout has passed"
    """The attempt has failed; it counts."""
    LEASE_LOST = "its lease is lost"
    """Another worker may have the job. Nothing is written."""
    CANCELLED = "an operator removed the job"
    """Its row disappeared while the lease was alive, so that no other worker has it. Nothing is written."""
    UNREACHABLE = "its lease cannot be renewed, because the store does not answer"
    """The job is handed back as soon as the store answers. The fence refuses that if the job has another owner by
    then."""
    SHUTDOWN = "the worker stops"
    """The job is handed back at once; the attempt does not count."""

    @property
    def final(self) -> bool:
        """Whether the store has nothing left under this claim's token."""
        return self in _FINAL


_FINAL = (Interruption.LEASE_LOST, Interruption.CANCELLED)
