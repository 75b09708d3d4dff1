"""Unique jobs: their options, their keys, and what a dispatch does about a job of the same key."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from outbox.backoff import MAX_DELAY
from outbox.errors import InvalidOption
from outbox.policies.base import Declaration, Policies, checked_text, chosen, field_value
from outbox.policies.slots import SLOTS

_KEY_BYTES = 32
JOINED_FOR = timedelta(seconds=5)
"""A job that is due for longer may be starting: a dispatch inserts a successor instead of joining it."""

START, END = "start", "end"
QUEUE_ONE, SKIP = "queue_one", "skip"
DECISIVE_OPTIONS = ("unique",)
"""A class has the policy if one of them is set, or if it has a method `KEY_METHOD`."""
KEY_METHOD = "unique_key"
_ONLY_UNIQUE = ("unique_until", "on_conflict", "when_running", "debounce", "max_wait")


class OnConflict(StrEnum):
    IGNORE = "ignore"
    RAISE = "raise"
    REPLACE = "replace"


def check_seconds(seconds: object) -> float:
    """
    Raises:
        InvalidOption: ``seconds`` is no number over 0, or over ten years.
    """
    if isinstance(seconds, timedelta):
        seconds = seconds.total_seconds()
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= MAX_DELAY:
        raise InvalidOption(f"debounce and max_wait are seconds over 0 (up to ten years), not {seconds!r}")
    return float(seconds)


def check_unique_until(until: object) -> str | float:
    if until in (START, END):
        return str(until)
    if isinstance(until, timedelta):
        until = until.total_seconds()
    if isinstance(until, bool) or not isinstance(until, int | float) or not 0 < until <= MAX_DELAY:
        raise InvalidOption(f"unique_until is {START!r}, {END!r}, or seconds (up to ten years), not {until!r}")
    return float(until)


_Seconds = Annotated[float, AfterValidator(check_seconds)]


class UniqueHeaders(BaseModel):
    """What is stored with a unique job."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    key: Annotated[str, Field(pattern=f"^[0-9a-f]{{{2 * _KEY_BYTES}}}$")]
    """In hexadecimal digits."""
    until: Annotated[str | float, AfterValidator(check_unique_until)] = START
    """``start``, ``end``, or seconds from the dispatch."""
    on_conflict: OnConflict = OnConflict.IGNORE
    when_running: str = QUEUE_ONE
    debounce: _Seconds | None = None
    max_wait: _Seconds | None = None

    @property
    def key_bytes(self) -> bytes:
        return bytes.fromhex(self.key)


def pack_payload(payload: str, version: int | None) -> str:
    """As a dispatch keeps it that replaces the payload of a waiting job, with its version where it has one."""
    return payload if version is None else f"{version}:{payload}"


def unpack_payload(text: str) -> tuple[str, int | None]:
    """A payload is an object in JSON, and begins with no digit."""
    version, separator, payload = text.partition(":")
    return (payload, int(version)) if separator and version.isdecimal() else (text, None)


def check_unique(unique: object) -> bool | tuple[str, ...]:
    if isinstance(unique, bool):
        return unique
    if isinstance(unique, str) or not isinstance(unique, Sequence) or not unique:
        raise InvalidOption(f"unique is True, False, or a list of the job's fields, not {unique!r}")
    for name in unique:
        if not isinstance(name, str):
            raise InvalidOption(f"unique lists the names of fields, not {name!r}")
    return tuple(sorted(set(unique)))


def check_on_conflict(on_conflict: object) -> OnConflict:
    if on_conflict not in list(OnConflict):
        raise InvalidOption(f"on_conflict is one of {', '.join(OnConflict)}, not {on_conflict!r}")
    return OnConflict(str(on_conflict))


def check_when_running(when_running: object) -> str:
    if when_running not in (QUEUE_ONE, SKIP):
        raise InvalidOption(f"when_running is {QUEUE_ONE!r} or {SKIP!r}, not {when_running!r}")
    return str(when_running)


def declare(kind: type, options: Any) -> Declaration | None:
    """Whether jobs of the class ``kind`` are unique when they are dispatched with ``options``, and how.

    Raises:
        InvalidOption: the options do not go together, or ``unique`` names a field that the job does not have.
    """
    unique = chosen(kind, options, "unique")
    method = getattr(kind, KEY_METHOD, None)
    if unique is None:
        unique = method is not None
    if not unique:
        _check_only_unique(kind, options)
        return None
    terms = _terms(kind, options)
    fields = None if unique is True else tuple(unique)
    _check_fields(kind, fields)
    name: str = kind.name  # type: ignore[attr-defined]
    by_method = fields is None and method is not None

    def value(job: Any, payload: bytes) -> UniqueHeaders:
        if by_method:
            key = key_of_text(name, checked_text(job, "unique_key", job.unique_key()))
        else:
            values = json.loads(payload)
            key = key_of_values(name, values if fields is None else {f: field_value(job, values, f) for f in fields})
        return UniqueHeaders(key=key.hex(), **terms)

    return Declaration(Policies.UNIQUE, "unique", value, terms["debounce"])


def _check_only_unique(kind: type, options: Any) -> None:
    """What the class says of unique jobs does not matter to a dispatch that makes none."""
    for name in _ONLY_UNIQUE:
        value = chosen(kind, options, name) if options.unique is None else getattr(options, name)
        if value is not None:
            raise InvalidOption(f"{name} says something of a unique job: set `unique` as well")


def _terms(kind: type, options: Any) -> dict[str, Any]:
    until = check_unique_until(chosen(kind, options, "unique_until") or START)
    debounce, max_wait = chosen(kind, options, "debounce"), chosen(kind, options, "max_wait")
    if until == END or options.unique_until is None:
        when_running = chosen(kind, options, "when_running")
    else:
        # The class says it of its own `unique_until`.
        when_running = options.when_running
    if when_running is not None and until != END:
        raise InvalidOption(f"when_running goes with unique_until={END!r}")
    if max_wait is not None and debounce is None:
        raise InvalidOption("max_wait is for how long debounce may put a job off: set `debounce` as well")
    return {
        "until": until,
        "on_conflict": OnConflict(chosen(kind, options, "on_conflict") or OnConflict.IGNORE),
        "when_running": when_running or QUEUE_ONE,
        "debounce": None if debounce is None else check_seconds(debounce),
        "max_wait": None if max_wait is None else check_seconds(max_wait),
    }


def _check_fields(kind: type, fields: Collection[str] | None) -> None:
    known = getattr(kind, "model_fields", {})
    if unknown := sorted(set(fields or ()) - set(known)):
        raise InvalidOption(f"{kind.__name__} has no field {unknown[0]!r}, by which it is to be unique")


def key_of_values(name: str, values: Mapping[str, Any]) -> bytes:
    """The key of a job by the values of fields, as JSON has them: all fields, or some. 32 bytes.

    It does not depend on the order of the fields.
    """
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return _hashed("fields", name, text)


def key_of_text(name: str, text: str) -> bytes:
    """The key of a job whose ``unique_key`` returns ``text``; never that of a job by its fields."""
    return _hashed("text", name, text)


def _hashed(kind: str, name: str, text: str) -> bytes:
    # A list of strings in JSON, so that no two of them run into each other.
    document = json.dumps([kind, name, text], ensure_ascii=False, separators=(",", ":"))
    data = document.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(data, digest_size=_KEY_BYTES, person=b"outbox unique").digest()


def slot_of(key: bytes) -> int:
    """The slot of a key. Slots have the order of keys, so that transactions that lock both in ascending order never
    wait for each other in a circle."""
    return int.from_bytes(key[:2]) * SLOTS >> 16


def in_lock_order(keys: Iterable[bytes]) -> list[bytes]:
    """Each once, in the order in which every transaction locks them."""
    return sorted(set(keys))


class Outcome(StrEnum):
    INSERT = "insert"
    JOIN = "join"
    """Return the id of the job that waits."""
    REPLACE = "replace"
    """The same, with the newest payload."""
    REFUSE = "refuse"


class Holder(NamedTuple):
    """The job that has a key."""

    waits: bool
    """Whether it has not started, and its rows show that it will not while this transaction lasts."""
    due_at: datetime
    held_until: datetime | None = None
    """For a key that lasts for seconds: its end, whatever becomes of its job. None where the key ends with the start of
    the job."""


def on_dispatch(holder: Holder | None, on_conflict: OnConflict, now: datetime) -> Outcome:
    """What to do where ``holder`` has the key. A payload is given to a job that waits only."""
    if holder is None:
        return Outcome.INSERT
    joinable = holder.waits and now - holder.due_at <= JOINED_FOR
    held = joinable if holder.held_until is None else holder.held_until > now
    if not held:
        return Outcome.INSERT
    if on_conflict is OnConflict.REPLACE:
        return Outcome.REPLACE if joinable else Outcome.INSERT
    return Outcome.JOIN if on_conflict is OnConflict.IGNORE else Outcome.REFUSE


def debounced_until(first_at: datetime, now: datetime, debounce: float, max_wait: float | None) -> datetime:
    """When a job is due that was first dispatched at ``first_at`` and again ``now``; both in seconds."""
    due_at = now + timedelta(seconds=debounce)
    return due_at if max_wait is None else min(due_at, max(now, first_at + timedelta(seconds=max_wait)))
