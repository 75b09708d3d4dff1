"""What a pause is, to an application, an operator and a store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import NamedTuple, Protocol

from outbox.drivers.values import JobState, StoredJob
from outbox.envelope import Headers
from outbox.errors import InvalidOption, InvalidPayload
from outbox.options import check_queue
from outbox.registry import names_of

LONGEST_TEXT = 255
"""Characters of a reason, of a key, and of who has paused."""


class PauseKind(StrEnum):
    """What is paused."""

    CONNECTION = "connection"
    QUEUE = "queue"
    JOB = "job"
    KEY = "key"


class PauseTarget(NamedTuple):
    """What is paused: ``name`` is that of the connection, the queue, the job as it is stored, or the key."""

    kind: PauseKind
    name: str

    def __str__(self) -> str:
        """``the job app.SendMail``."""
        return f"the {self.kind} {self.name}"


class PauseTerms(NamedTuple):
    """Why and until when. The store's clock decides."""

    reason: str | None = None
    until: datetime | None = None
    """Aware. None where ``seconds`` says it, or it lasts until it is resumed."""
    seconds: float | None = None
    by: str | None = None
    """Who has paused."""

    @property
    def changes(self) -> bool:
        """Whether a pause that is there gets these terms: they say a reason or an end."""
        return self.reason is not None or self.until is not None or self.seconds is not None


@dataclass(frozen=True, slots=True)
class Pause:
    """A pause that has not ended. Times are aware, in UTC, from the store's clock."""

    kind: PauseKind
    name: str
    """The connection, the queue, the name of the job class as stored, or the key."""
    reason: str | None
    by: str | None
    """Who has paused, where that is known."""
    paused_at: datetime | None
    until: datetime | None
    """When it ends by itself; None: when it is resumed."""

    @property
    def target(self) -> PauseTarget:
        return PauseTarget(self.kind, self.name)


class PauseStore(Protocol):
    async def pause(self, target: PauseTarget, terms: PauseTerms) -> bool:
        """False where it is paused already: it gets the reason and the end of ``terms``, if they say one.

        Raises:
            ConfigurationError: this store cannot pause such a thing.
        """

    async def resume(self, target: PauseTarget, on_released: Callable[[frozenset[str]], None]) -> bool:
        """End a pause; False where there was none. ``on_released`` is called with queues that got claimable jobs, as
        often as some have: there may be many."""

    async def all(self) -> Sequence[Pause]:
        """The pauses that have not ended, by kind and name."""

    async def has_key(self, name: str) -> bool:
        """Whether a live job has this key; of very many, whether one of the first has."""


def described(pause: Pause) -> str:
    """``paused: the queue mail: the provider is down, until 2026-11-29 14:00:00 UTC``."""
    return f"paused: {pause.target}{terms_text(pause)}"


def terms_text(pause: Pause) -> str:
    """``: the provider is down, until 2026-11-29 14:00:00 UTC``; empty without a reason and an end."""
    reason = f": {pause.reason}" if pause.reason else ""
    until = f", until {pause.until.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" if pause.until is not None else ""
    return reason + until


def pause_of(pauses: Sequence[Pause], job: StoredJob) -> Pause | None:
    """What keeps a live job from being claimed: the first of these pauses that does."""
    if job.state is JobState.RESERVED or not pauses:
        return None
    names: dict[PauseKind, Sequence[str]] = {PauseKind.QUEUE: [job.queue], PauseKind.JOB: names_of(job.name)}
    if any(pause.kind is PauseKind.KEY for pause in pauses):
        names[PauseKind.KEY] = names_of_keys(job.headers)
    return next(
        (pause for pause in pauses if pause.kind is PauseKind.CONNECTION or pause.name in names.get(pause.kind, ())),
        None,
    )


def names_of_keys(headers: str) -> list[str]:
    """Those by which a job can be paused; none where its headers cannot be read."""
    try:
        header = Headers.load(headers).keys
    except InvalidPayload:
        return []
    return [] if header is None else [key.name for _, key in header.kinds()]


def check_text(text: str | None, what: str) -> str | None:
    """
    Raises:
        InvalidOption: it is no text of 1 to 255 characters.
    """
    if text is None:
        return None
    if not isinstance(text, str) or not 1 <= len(text) <= LONGEST_TEXT or "\0" in text:
        raise InvalidOption(f"{what} is a text of 1 to {LONGEST_TEXT} characters, not {text!r:.80}")
    return text


def check_target(target: PauseTarget) -> PauseTarget:
    """
    Raises:
        InvalidOption: nothing can have this name.
    """
    if target.kind is PauseKind.QUEUE:
        check_queue(target.name)
    else:
        check_text(target.name, f"the name of a {target.kind} to pause")
    return target
