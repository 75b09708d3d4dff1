"""Jobs with a key: how many run at once, in which order, and whose turn it is. Pure decisions; no I/O.

A job has a row for each kind of key. The row has a place, which is when the job became due and a sequence, and a state.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from enum import IntEnum, StrEnum
from functools import cached_property, lru_cache
from typing import Annotated, Any, NamedTuple, Protocol

from pydantic import BaseModel, ConfigDict, Field

from outbox.errors import InvalidJob, InvalidOption
from outbox.policies.base import Declaration, Policies, checked_text, chosen, field_value

ROUND = 10
"""Jobs of a fair key with the weight 1 that claims take before it is the turn of others."""
MAX_LIMIT = 65_535
_MAX_WEIGHT = 100
_NAME_LENGTH = 255
DECISIVE_OPTIONS = ("concurrency_key", "ordering_key", "fair_key")
"""A class has the policy if one of them is set."""
_DEPENDENT = {
    "concurrency_limit": "concurrency_key",
    "on_full": "concurrency_key",
    "on_failed": "ordering_key",
    "ordering": "ordering_key",
    "fair_weight": "fair_key",
}
"""Options, and the key that each is about."""


class Kind(IntEnum):
    ORDERING = 1
    CONCURRENCY = 2
    FAIR = 3


class State(IntEnum):
    """Of a job under one of its keys."""

    WAITING = 0
    """It has what time it became due at, and claims find it then."""
    PARKED = 1
    HELD = 2
    """It runs, or its worker has died and its lease has not ended."""
    BLOCKING = 3
    """It has failed for good, and what comes after it under its ordering key waits."""
    LET_IN = 4
    """It was parked, and claims find it again."""


_ORDERING, _CONCURRENCY, _FAIR, _HELD = Kind.ORDERING, Kind.CONCURRENCY, Kind.FAIR, State.HELD
"""Python 3.11 finds a member of an enumeration by calling a function; these are for every job with a key."""


class OnFull(StrEnum):
    WAIT = "wait"
    SKIP = "skip"
    REPLACE_RUNNING = "replace_running"


class OnFailed(StrEnum):
    BLOCK = "block"
    SKIP = "skip"


class Key(BaseModel):
    """What the headers of a job say of one of its keys."""

    model_config = ConfigDict(frozen=True)

    name: str
    """For people: ``customer:7``."""
    scope: str = ""
    """The job's name where the key is a field: other classes with such a field have other keys."""
    size: Annotated[int, Field(ge=1, le=MAX_LIMIT)] = 1
    """The limit of a concurrency key, the weight of a fair one; of an ordering key whether a failed job blocks it."""


class Concurrency(Key):
    on_full: OnFull = OnFull.WAIT
    job: str = ""
    """The job's name, by which an operator sets another limit."""


class Ordering(Key):
    size: Annotated[int, Field(ge=0, le=1)] = 1
    strict: bool = False


class KeyHeader(BaseModel):
    """The keys of a job."""

    model_config = ConfigDict(frozen=True)

    ordering: Ordering | None = None
    concurrency: Concurrency | None = None
    fair: Key | None = None

    def kinds(self) -> list[tuple[Kind, Key]]:
        """In the order in which they are asked: a job that is not the next in order takes no slot."""
        pairs = [(_ORDERING, self.ordering), (_CONCURRENCY, self.concurrency), (_FAIR, self.fair)]
        return [(kind, key) for kind, key in pairs if key is not None]

    @cached_property
    def hashes(self) -> dict[Kind, bytes]:
        """The 16 bytes of each key, in the order of `kinds`. Jobs of one key often have the same headers, which a claim
        and a settlement ask several times."""
        return {kind: hash_of(kind, key) for kind, key in self.kinds()}


def hash_of(kind: Kind, key: Key) -> bytes:
    """16 bytes by which rows are found."""
    return _hash(int(kind), key.scope, key.name)


@lru_cache(2_048)
def _hash(kind: int, scope: str, name: str) -> bytes:
    text = json.dumps([kind, scope, name], ensure_ascii=False, separators=(",", ":"))
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16, person=b"outbox keys").digest()


class Place(NamedTuple):
    """Where a job stands under its key: by the database's time, and by a sequence."""

    moment: str
    seq: int


class Facts(NamedTuple):
    """What the rows of one key say."""

    held: int
    """How many jobs of the key are held."""
    let_in: int
    blocked: bool
    first_waiting: Place | None
    """The first job of the key that is due and not parked."""
    first_parked: Place | None


class Candidate(NamedTuple):
    """A job that a claim has found, under one of its keys."""

    place: Place
    state: State


class HasState(Protocol):
    """A `Candidate`, or its row."""

    @property
    def state(self) -> State: ...


class Turn(StrEnum):
    RUN = "run"
    PARK = "park"
    LEAVE = "leave"
    """The job before it has to be found first."""


_RUN, _PARK = Turn.RUN, Turn.PARK


def in_order(candidates: Sequence[Candidate], facts: Facts) -> list[Turn]:
    """One job of an ordering key at a time, the first by its place."""
    for number, candidate in enumerate(candidates):
        if candidate.state is State.HELD:
            # Its worker has died. It has never left its place.
            return [Turn.RUN if each == number else Turn.PARK for each in range(len(candidates))]
    if facts.held or facts.blocked:
        return [Turn.PARK] * len(candidates)
    places = [candidate.place for candidate in candidates]
    first = min(place for place in (facts.first_waiting, facts.first_parked, *places) if place is not None)
    behind = Turn.LEAVE if first == facts.first_parked and first not in places else Turn.PARK
    return [Turn.RUN if place == first else behind for place in places]


def within_limit(candidates: Sequence[HasState], facts: Facts, limits: Sequence[int]) -> list[Turn]:
    """As many jobs of a concurrency key as there is room for, by the limit of each."""
    held = facts.held
    turns = []
    for candidate, limit in zip(candidates, limits, strict=True):
        if candidate.state is _HELD:
            turns.append(_RUN)
        elif held < limit:
            held += 1
            turns.append(_RUN)
        else:
            turns.append(_PARK)
    return turns


def to_let_in(kind: Kind, facts: Facts, size: int) -> int:
    """How many parked jobs of the key claims may find again. ``facts`` are those after what this transaction does."""
    if facts.first_parked is None:
        return 0
    if kind is Kind.CONCURRENCY:
        return max(0, size - facts.held - facts.let_in)
    if kind is Kind.FAIR:
        missing = size * ROUND - facts.let_in
        # Not one by one: that would be a statement for each claim and key.
        return missing if 2 * missing >= size * ROUND else 0
    waits = facts.first_waiting is not None and facts.first_waiting < facts.first_parked
    return 0 if facts.held or facts.blocked or waits else 1


# What a class declares


_NOT_PUT_OFF = "ordering='strict' is the order of the transactions: such a job takes no delay and no debounce"


def check_key(key: object) -> str:
    if not isinstance(key, str) or not key:
        raise InvalidOption(f"a key is the name of a field of the job, or a method that returns a text, not {key!r}")
    return key


def check_limit(limit: object) -> int:
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MAX_LIMIT:
        raise InvalidOption(f"a concurrency_limit is a whole number from 1 to {MAX_LIMIT}, not {limit!r}")
    return limit


def check_weight(weight: object) -> int:
    if isinstance(weight, bool) or not isinstance(weight, int) or not 1 <= weight <= _MAX_WEIGHT:
        raise InvalidOption(f"a fair_weight is a whole number from 1 to {_MAX_WEIGHT}, not {weight!r}")
    return weight


def one_of(name: str, *values: str) -> Callable[[object], str]:
    """A check of an option that has these values."""

    def check(value: object) -> str:
        if value not in values:
            raise InvalidOption(f"{name} is {' or '.join(repr(str(each)) for each in values)}, not {value!r}")
        return str(value)

    return check


def check_class(kind: Any) -> None:
    """
    Raises:
        InvalidOption: a key is no field of the job.
    """
    fields = getattr(kind, "model_fields", {})
    for name in ("concurrency_key", "ordering_key", "fair_key"):
        key = getattr(kind, name)
        if isinstance(key, str) and key not in fields:
            raise InvalidOption(f"{name} = {key!r}: the job has no such field")
    # A class without a handler may be a base of others, which have the key.
    for name, of in _DEPENDENT.items() if callable(getattr(kind, "handle", None)) else ():
        if getattr(kind, name) is not None and getattr(kind, of) is None:
            raise InvalidOption(f"{name} says something of a key: set `{of}` as well")
    if kind.ordering == "strict" and kind.debounce is not None:
        raise InvalidOption(_NOT_PUT_OFF)


def declare(kind: type, options: Any) -> Declaration | None:
    """
    Raises:
        InvalidOption: an option of the dispatch does not fit the class.
    """
    concurrency, ordering = chosen(kind, options, "concurrency_key"), chosen(kind, options, "ordering_key")
    fair = chosen(kind, options, "fair_key")
    if concurrency is None and ordering is None and fair is None:
        return None
    limit = chosen(kind, options, "concurrency_limit") or 1
    on_full = OnFull(chosen(kind, options, "on_full") or OnFull.WAIT)
    blocks = int(chosen(kind, options, "on_failed") != OnFailed.SKIP)
    strict = chosen(kind, options, "ordering") == "strict"
    if strict and (options.delay is not None or chosen(kind, options, "debounce") is not None):
        raise InvalidOption(_NOT_PUT_OFF)
    weight = chosen(kind, options, "fair_weight") or 1

    def header(job: Any, payload: bytes) -> KeyHeader:
        def key(of: Any, name: str, size: int) -> dict[str, Any] | None:
            return None if of is None else _key(job, payload, of, name, size)

        ordered, limited, turns = (
            key(ordering, "ordering_key", blocks),
            key(concurrency, "concurrency_key", limit),
            key(fair, "fair_key", weight),
        )
        return KeyHeader(
            ordering=None if ordered is None else Ordering(strict=strict, **ordered),
            concurrency=None if limited is None else Concurrency(on_full=on_full, job=job.name, **limited),
            fair=None if turns is None else Key(**turns),
        )

    return Declaration(Policies.KEY, "keys", header)


def _key(job: Any, payload: bytes, of: Any, option: str, size: int) -> dict[str, Any] | None:
    """A key whose value is None is none: the job goes without it."""
    if callable(of):
        value = getattr(job, option)()
        if value is None:
            return None
        if not checked_text(job, option, value):
            raise InvalidJob(f"{job.name}: {option} returned an empty text, which is no key")
        return {"name": value, "size": size}
    value = field_value(job, json.loads(payload), of)
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, separators=(",", ":"))
    return {"name": f"{of.removesuffix('_id')}:{text}", "scope": job.name, "size": size}


def shown(name: str) -> str:
    """As much of a key's name as its rows keep."""
    return name[:_NAME_LENGTH]
