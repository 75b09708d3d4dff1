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
    NOT_BEGUN = "its lease ended before it began"
    """The claim was answered too late, or this process was frozen. The job is handed back, in the same way: it cannot
    have been the cause."""
    SHUTDOWN = "the worker stops"
    """The job is handed back at once; the attempt does not count."""

    @property
    def final(self) -> bool:
        """Whether the store has nothing left under this claim's token."""
        return self in _FINAL

    @property
    def loses_lease(self) -> bool:
        """Whether another worker may have the job."""
        return self in _LOSES_LEASE


_FINAL = (Interruption.LEASE_LOST, Interruption.CANCELLED)
_LOSES_LEASE = (Interruption.LEASE_LOST, Interruption.UNREACHABLE, Interruption.NOT_BEGUN)
