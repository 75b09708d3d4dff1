"""Who looks at the dashboard, and what a viewer may do."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from outbox.errors import InvalidOption

_LONGEST_NAME = 200


class Right(StrEnum):
    """A named right. Each route of the dashboard demands one."""

    SEE = "see"
    """Open the pages."""
    SEE_PAYLOADS = "see-payloads"
    """See payloads, headers, keys and the text of errors."""
    SEE_ENCRYPTED = "see-encrypted"
    """See also what is encrypted of them, with the keys of the process. No preset has it."""
    PAUSE_QUEUES = "pause-queues"
    CLEAR_QUEUES = "clear-queues"
    CANCEL_JOBS = "cancel-jobs"
    CHANGE_JOBS = "change-jobs"
    """Have waiting jobs run now or at another time, and change their queues and priorities."""
    RETRY_FAILED = "retry-failed"
    FORGET_FAILED = "forget-failed"
    DISPATCH = "dispatch"
    """Dispatch a copy of a job, its payload changed or not."""
    UNBLOCK_KEYS = "unblock-keys"
    SET_LIMITS = "set-limits"
    RUN_SCHEDULES = "run-schedules"
    """Pause, resume and run schedules, and dispatch ticks of the past."""
    MANAGE_BATCHES = "manage-batches"
    """Cancel batches, and retry their failures."""
    MANAGE_WORKERS = "manage-workers"
    """Have worker processes claim nothing, claim again, or stop."""
    STOP_OPERATIONS = "stop-operations"
    """Stop bulk operations. To begin one, a viewer needs the right to do the same to one job, or to a queue."""


READ_ONLY = frozenset({Right.SEE, Right.SEE_PAYLOADS, Right.SEE_ENCRYPTED})
"""What a viewer keeps with ``read_only=True``."""
VIEWER = READ_ONLY - {Right.SEE_ENCRYPTED}
OPERATOR = VIEWER | {
    Right.PAUSE_QUEUES,
    Right.CANCEL_JOBS,
    Right.CHANGE_JOBS,
    Right.RETRY_FAILED,
    Right.UNBLOCK_KEYS,
    Right.RUN_SCHEDULES,
    Right.MANAGE_BATCHES,
    Right.MANAGE_WORKERS,
    Right.STOP_OPERATIONS,
}
ADMIN = frozenset(Right) - {Right.SEE_ENCRYPTED}

_PRESETS = {"viewer": VIEWER, "operator": OPERATOR, "admin": ADMIN}


class Viewer:
    """A person who is signed in.

    ``name`` stands in the page and in the audit log, up to 200 characters. ``may`` is ``"viewer"``, ``"operator"`` or
    ``"admin"``, or rights by name, with presets among them: ``{"viewer", "retry-failed"}``. Default: ``"viewer"``.

    Raises:
        InvalidOption: the name is empty or too long, or there is no such right.
    """

    __slots__ = ("may", "name")

    def __init__(self, name: str, may: str | Iterable[Right | str] = "viewer") -> None:
        if not isinstance(name, str) or not 1 <= len(name) <= _LONGEST_NAME:
            raise InvalidOption(f"the name of a viewer is 1 to {_LONGEST_NAME} characters, not {name!r}")
        self.name = name
        self.may = rights(may)

    def __repr__(self) -> str:
        return f"Viewer({self.name!r}, may={sorted(self.may)!r})"

    def limited_to(self, may: frozenset[Right]) -> Viewer:
        """The viewer with no right beside ``may``."""
        return Viewer(self.name, self.may & may)


def rights(may: str | Iterable[Right | str]) -> frozenset[Right]:
    """
    Raises:
        InvalidOption: there is no such preset or right.
    """
    if isinstance(may, str):
        preset = _PRESETS.get(may)
        if preset is None:
            raise InvalidOption(f"there is no preset {may!r} of rights: {', '.join(_PRESETS)}, or a set of rights")
        return preset
    try:
        return frozenset().union(*(_PRESETS.get(each) or {Right(each)} for each in may))
    except (ValueError, TypeError) as error:
        raise InvalidOption(f"there is no such right ({error}); there are: {', '.join(Right)}") from None
