"""How an attempt at a job ends: a frozen value, made only by the named constructors below."""

from __future__ import annotations

import json
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from outbox.encryption import MARK
from outbox.envelope import Envelope
from outbox.fingerprint import fingerprint
from outbox.ids import JobId
from outbox.policies.results import Progress

_MESSAGE_LIMIT = 8_000
_TRACEBACK_LIMIT = 64_000
SUMMARY_LIMIT = 1_000
ENCRYPTED = "encrypted"
"""In place of the message of an exception whose texts are encrypted."""

_TYPE_NAME = type.__dict__["__name__"]
"""Gives the name of a class without asking its metaclass."""


class Fence(NamedTuple):
    """The proof of ownership that every write names: a job, and the token of the claim that holds it."""

    job_id: JobId
    token: bytes


class Outcome(StrEnum):
    COMPLETED = "completed"
    RETRIED = "retried"
    FAILED = "failed"
    RELEASED = "released"
    SNOOZED = "snoozed"
    CANCELLED = "cancelled"
    DEFERRED = "deferred"
    FORGOTTEN = "forgotten"
    """An operator removed the failed job for good. No settlement has it."""
    SKIPPED = "skipped"
    """A policy removed the job before it ran. No settlement has it."""


ENDS = {Outcome.COMPLETED, Outcome.FAILED, Outcome.CANCELLED, Outcome.SKIPPED}
"""A job with one of them is over."""
PUT_BACK = {Outcome.RETRIED, Outcome.RELEASED, Outcome.SNOOZED}
"""The job is held no longer, and is claimed again."""
CLAIMED_AGAIN = {*PUT_BACK, Outcome.DEFERRED}
"""A deferred job is claimed again too. It is held until then."""
UNCOUNTED = {Outcome.SNOOZED, Outcome.DEFERRED}
"""The job goes back as if this attempt had never been."""

_COMPLETED = Outcome.COMPLETED
"""Python 3.11 finds a member of an enumeration by calling a function; this is for every job."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An exception as it is stored: type, message and traceback as text. Of an encrypted job, ``traceback`` holds both
    texts encrypted."""

    type: str
    message: str
    traceback: str

    @property
    def summary(self) -> str:
        """``type: message``, at most 1,000 characters: what a job keeps of its last error between two attempts."""
        return (f"{self.type}: {self.message}" if self.message else self.type)[:SUMMARY_LIMIT]

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that all failures of one problem have. Of an encrypted job, only the type counts."""
        return fingerprint(self.type, self.message, "" if self.encrypted else self.traceback)

    @property
    def encrypted(self) -> bool:
        """Whether only the type can be read."""
        return self.message == ENCRYPTED and self.traceback.startswith(MARK)

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """Describe ``error``. Never raises, whatever the exception's own ``__str__`` or its class does."""
        name = _name(type(error))
        try:
            message = str(error)
        except BaseException as broken:  # noqa: BLE001 - an exception's own __str__ may raise anything
            message = f"<{name.rpartition('.')[2]} whose message cannot be shown: {type(broken).__name__}>"
        try:
            trace = _trace(error) if error.__traceback__ or error.__cause__ else ""
        except BaseException:  # noqa: BLE001
            trace = ""
        return cls(_storable(name), _storable(message)[:_MESSAGE_LIMIT], _storable(trace)[-_TRACEBACK_LIMIT:])


UNKNOWN_FAILURE = Failure("unknown", "", "")


def dump_failure(failure: Failure | None) -> str:
    """One line of JSON."""
    known = failure or UNKNOWN_FAILURE
    return json.dumps({"type": known.type, "message": known.message, "traceback": known.traceback})


def _name(kind: type) -> str:
    try:
        return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    except BaseException:  # noqa: BLE001 - a metaclass may raise anything
        return str(_TYPE_NAME.__get__(kind))


def _trace(error: BaseException) -> str:
    """Its frames stay, however long its message is."""
    parts = traceback.format_exception(error)
    return "".join(part if len(part) <= _MESSAGE_LIMIT else f"{part[:_MESSAGE_LIMIT]}…\n" for part in parts)


def _storable(text: str) -> str:
    """Lone surrogates cannot be encoded as UTF-8 and would make the whole batch fail."""
    # Not a method of ``text``: a message may be of a subclass with an ``encode`` of its own.
    return str.encode(text, "utf-8", "backslashreplace").decode("utf-8")


class InsertJobs(NamedTuple):
    """These jobs enter their queues."""

    envelopes: tuple[Envelope, ...]


class LeavePolicies(NamedTuple):
    """The attempt at a job with policies ends."""

    job_id: JobId
    policies: int
    """Bits of `Policies`."""
    headers: str
    outcome: Outcome
    delay: float = 0.0
    """Seconds until the job may be claimed again, if it is put back."""
    in_session: bool = False
    """Whether the transaction is the job's own, of the isolation that the server gives to applications."""


class MoveRates(NamedTuple):
    """A service has refused a job: its rate limits admit no job for some seconds."""

    headers: str
    seconds: float


class ReplaceHeaders(NamedTuple):
    """The job gets these headers before its end is written, so that a failed job has them too."""

    job_id: JobId
    headers: str


class KeepFinished(NamedTuple):
    """The job is kept for ``keep_for`` seconds after its end."""

    job_id: JobId
    queue: str
    name: str
    priority: int
    payload: str
    headers: str
    attempts: int
    keep_for: float
    result: str
    """What ``handle`` returned, as JSON."""
    progress: Progress | None
    seconds: float
    """How long the handler took."""


Effect = InsertJobs | LeavePolicies | MoveRates | ReplaceHeaders | KeepFinished
"""What the transaction of a settlement writes besides the end of the attempt. Each driver has a registry that says how
each kind is written."""


class Settlement(NamedTuple):
    """The end of one attempt. ``delay`` is seconds until the job may be claimed again."""

    fence: Fence
    outcome: Outcome
    delay: float = 0.0
    failure: Failure | None = None
    effects: tuple[Effect, ...] = ()

    @property
    def inserted(self) -> Sequence[Envelope]:
        """The jobs that its effects insert."""
        if not self.effects:
            return ()
        return [job for effect in self.effects if isinstance(effect, InsertJobs) for job in effect.envelopes]

    @property
    def headers(self) -> str | None:
        """The headers that the job gets; None where it keeps those that it has."""
        return next((effect.headers for effect in self.effects if isinstance(effect, ReplaceHeaders)), None)

    def leaving(self, policies: int, headers: str, *, in_session: bool = False) -> Settlement:
        """The same for a job with ``policies``, which learn of it in the same transaction."""
        effect = LeavePolicies(self.fence.job_id, policies, headers, self.outcome, self.delay, in_session)
        return self._replace(effects=(*self.effects, effect))

    @classmethod
    def completed(cls, fence: Fence, effects: tuple[Effect, ...] = ()) -> Settlement:
        """The job succeeded and leaves the queue; ``effects`` are part of the same transaction."""
        return cls(fence, _COMPLETED, 0.0, None, effects)

    @classmethod
    def retried(cls, fence: Fence, delay: float, failure: Failure) -> Settlement:
        """The attempt failed and counts; another one follows after ``delay``."""
        return cls(fence, Outcome.RETRIED, delay, failure)

    @classmethod
    def failed(cls, fence: Fence, failure: Failure) -> Settlement:
        """The job moves to the failed jobs, its payload untouched."""
        return cls(fence, Outcome.FAILED, failure=failure)

    @classmethod
    def released(cls, fence: Fence, delay: float = 0.0) -> Settlement:
        """The job put itself back; the attempt counts."""
        return cls(fence, Outcome.RELEASED, delay)

    @classmethod
    def snoozed(cls, fence: Fence, delay: float = 0.0) -> Settlement:
        """The job goes back as if this attempt had never been: a snooze, or a worker that shuts down."""
        return cls(fence, Outcome.SNOOZED, delay)

    @classmethod
    def deferred(cls, fence: Fence, delay: float = 0.0) -> Settlement:
        """As `snoozed`, but the next claim still sees that the attempt before this one was lost with its process: its
        ``rescued`` is true."""
        return cls(fence, Outcome.DEFERRED, delay)

    @classmethod
    def cancelled(cls, fence: Fence) -> Settlement:
        """The job is removed: neither success nor failure."""
        return cls(fence, Outcome.CANCELLED)
