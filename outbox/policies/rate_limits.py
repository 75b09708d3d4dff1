"""Rate limits as applications declare them, and what the header of a job keeps of them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_core import to_jsonable_python

from outbox.errors import ConfigurationError, InvalidJob, InvalidOption
from outbox.policies.base import Declaration, Policies, checked_text, chosen, field_value
from outbox.policies.rate import Limit, Rate, Window

MAX_COST = MAX_BURST = 1_000_000

_NAME = re.compile(r"[\x21-\x7e]{1,255}")
_NAME_LENGTH = 255
DECISIVE_OPTIONS = ("rate",)
"""A class has the policy if it is set."""
_DEPENDENT = ("burst", "rate_key", "cost", "align")

_defined: dict[str, RateLimit] = {}


class Terms(BaseModel):
    """A limit with its name: so much, in which time."""

    model_config = ConfigDict(frozen=True)

    name: str
    rate: str
    burst: int | None = None
    align: str | None = None

    @property
    def limit(self) -> Limit:
        """
        Raises:
            ConfigurationError: they are no limit.
        """
        if self.align is not None:
            return Window.parse(self.rate, self.align)
        return Rate.parse(self.rate, self.burst)


class RateHeader(BaseModel):
    """The limits of one job, in the order of their names."""

    model_config = ConfigDict(frozen=True)

    limits: Annotated[tuple[Terms, ...], Field(min_length=1)]
    key: str | None = None
    cost: Annotated[int, Field(ge=1, le=MAX_COST)] = 1

    @field_validator("limits")
    @classmethod
    def _are_limits(cls, limits: tuple[Terms, ...]) -> tuple[Terms, ...]:
        """Other programs write headers as well, and a claim asks for the limits of all of its jobs at once."""
        for terms in limits:
            try:
                _ = terms.limit
            except ConfigurationError as error:
                raise ValueError(str(error)) from None
        return limits

    def by_id(self) -> dict[bytes, Terms]:
        return {rate_id(terms.name, self.key): terms for terms in self.limits}


@dataclass(frozen=True, slots=True)
class RateLimit:
    """A rate that job classes share under a name: ``rate = mailgun``, or a list of several.

    ``rate`` is ``"100/m"`` or ``"5/10s"``, per ``s``, ``m``, ``h`` or ``d``. Jobs start evenly spaced, after up to
    ``burst`` (1 to 1,000,000, default 1) at once. With ``align`` (``"second"``, ``"minute"``, ``"hour"``, ``"day"``)
    the count is that of each such span of the UTC clock. ``name`` is 1 to 255 printable ASCII characters.

    Raises:
        ConfigurationError: a value is of a wrong type or out of its range, or the name has another limit.
    """

    name: str
    rate: str
    burst: int | None = None
    align: str | None = None

    def __post_init__(self) -> None:
        check_name(self.name)
        try:
            check_terms(self.terms)
        except InvalidOption as error:
            raise ConfigurationError(f"the limit {self.name}: {error}") from None
        known = _defined.setdefault(self.name, self)
        if known != self:
            raise ConfigurationError(f"the limit {self.name!r} is defined twice: {known.terms!r}, {self.terms!r}")

    @property
    def terms(self) -> Terms:
        return Terms.model_construct(name=self.name, rate=self.rate, burst=self.burst, align=self.align)


def defined(name: str) -> Terms | None:
    """The terms of the `RateLimit` of this name that this process has defined."""
    known = _defined.get(name)
    return None if known is None else known.terms


def defined_names() -> list[str]:
    return sorted(_defined)


def of_class(kind: Any) -> Terms | None:
    """The terms of the limit that a job class has under its own name."""
    terms = () if kind.rate is None else _terms(kind.name, kind.rate, kind.burst, kind.align)
    return next((each for each in terms if each.name == kind.name), None)


def rate_id(name: str, key: str | None) -> bytes:
    """The key of the row of a limit and a key."""
    text = name if key is None else f"{name}\0{key}"
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def shown(key: str | None) -> str | None:
    """As much of a key as its row keeps."""
    return None if key is None else key[:_NAME_LENGTH]


def check_name(name: object) -> str:
    """
    Raises:
        ConfigurationError: no limit can have this name.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigurationError(f"a limit's name is 1 to 255 printable ASCII characters, not {name!r}")
    return name


def check_terms(terms: Terms) -> Terms:
    """
    Raises:
        InvalidOption: they are no limit.
    """
    check_rate(terms.rate)
    if terms.burst is not None:
        check_burst(terms.burst)
    if terms.align is not None:
        check_align(terms.align)
        if terms.burst is not None:
            raise InvalidOption("a rate that is aligned to the clock has no burst: leave out burst or align")
    try:
        _ = terms.limit
    except ConfigurationError as error:
        raise InvalidOption(str(error)) from None
    return terms


def check_rate(rate: object) -> object:
    """An option: a rate, a `RateLimit`, or a list of them."""
    if isinstance(rate, list | tuple) and rate:
        for each in rate:
            if isinstance(each, list | tuple):
                raise InvalidOption(f"a rate is a text such as '100/m', a RateLimit, or a list of them, not {rate!r}")
            check_rate(each)
        return rate
    if isinstance(rate, RateLimit):
        return rate
    if not isinstance(rate, str):
        raise InvalidOption(f"a rate is a text such as '100/m', a RateLimit, or a list of them, not {rate!r}")
    try:
        Rate.parse(rate)
    except ConfigurationError as error:
        raise InvalidOption(str(error)) from None
    return rate


def check_burst(burst: object) -> int:
    return _whole("a burst", burst, MAX_BURST)


def check_cost(cost: object) -> int:
    return _whole("a cost", cost, MAX_COST)


def _whole(what: str, value: object, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise InvalidOption(f"{what} is a whole number from 1 to {most:,}, not {value!r}")
    return value


def check_align(align: object) -> str:
    if align not in ("second", "minute", "hour", "day"):
        raise InvalidOption(f"align is 'second', 'minute', 'hour' or 'day', not {align!r}")
    return str(align)


def check_key(key: object) -> str:
    if not isinstance(key, str) or not key:
        raise InvalidOption(f"a rate_key is the name of a field, or a method, not {key!r}")
    return key


def key_text(value: object) -> str | None:
    """The key of jobs whose ``rate_key`` is a field with this value, or a method that returns this text.

    Raises:
        InvalidOption: JSON cannot hold the value.
    """
    try:
        return _text_of(value if isinstance(value, str) else to_jsonable_python(value))
    except ValueError as error:
        raise InvalidOption(f"a key is a value of a rate_key, which JSON can hold, not {value!r}: {error}") from None


def check_class(cls: Any) -> None:
    """
    Raises:
        InvalidOption: options of the class do not go together.
    """
    if cls.rate is None:
        alone = [name for name in _DEPENDENT if getattr(cls, name) is not None]
        if alone:
            raise InvalidOption(f"{alone[0]} is an option of a rate limit: give the class a rate, too")
        return
    terms = _terms(cls.name, cls.rate, cls.burst, cls.align)
    if isinstance(cls.cost, int) and (reason := _never_admits(terms, cls.cost)):
        raise InvalidOption(reason)
    field = cls.rate_key
    if isinstance(field, str) and callable(getattr(cls, "handle", None)) and field not in cls.model_fields:
        raise InvalidOption(f"rate_key is {field!r}, and the job has no such field")


def declare(kind: type, options: Any) -> Declaration | None:
    """
    Raises:
        InvalidOption: an option of the dispatch does not fit the class.
    """
    rate = chosen(kind, options, "rate")
    if rate is None:
        if any(getattr(options, name) is not None for name in _DEPENDENT):
            raise InvalidOption("burst, rate_key, cost and align are options of a rate limit: the job has no rate")
        return None
    name: str = kind.name  # type: ignore[attr-defined]
    terms = _terms(name, rate, *_burst_and_align(kind, options))
    of_key, of_cost = chosen(kind, options, "rate_key"), chosen(kind, options, "cost")

    def header(job: Any, payload: bytes) -> RateHeader:
        cost = _cost(job, of_cost)
        if reason := _never_admits(terms, cost):
            raise InvalidJob(f"{job.name}: {reason}")
        return RateHeader(limits=terms, key=_key(job, payload, of_key), cost=cost)

    return Declaration(Policies.RATE, "rates", header)


def _burst_and_align(kind: type, options: Any) -> tuple[int | None, str | None]:
    """A dispatch that gives named limits, or aligns the rate, need not repeat what the class says of its own."""
    if options.rate is not None and not _has_text(options.rate):
        return options.burst, options.align
    burst = options.burst if options.align is not None else chosen(kind, options, "burst")
    return burst, chosen(kind, options, "align")


def _has_text(rate: Any) -> bool:
    return isinstance(rate, str) or (isinstance(rate, list | tuple) and any(isinstance(each, str) for each in rate))


def _terms(job_name: str, rate: Any, burst: int | None, align: str | None) -> tuple[Terms, ...]:
    given: Sequence[str | RateLimit] = rate if isinstance(rate, list | tuple) else (rate,)
    own = [each for each in given if isinstance(each, str)]
    if not own and (burst is not None or align is not None):
        raise InvalidOption("burst and align of a named limit are those of its RateLimit")
    if len(own) > 1:
        raise InvalidOption("of several rates of a class, one can be a text; give the others names: RateLimit(…)")
    terms = {each.name: each.terms for each in given if isinstance(each, RateLimit)}
    if own:
        terms[job_name] = check_terms(Terms.model_construct(name=job_name, rate=own[0], burst=burst, align=align))
    return tuple(terms[name] for name in sorted(terms))


def _never_admits(terms: Sequence[Terms], cost: int) -> str | None:
    for each in terms:
        limit = each.limit
        if isinstance(limit, Window) and cost > limit.count:
            return f"the limit {each.name} ({each.rate}) never admits a cost of {cost:,}"
    return None


def _cost(job: Any, of: int | Callable[..., int] | None) -> int:
    cost = job.cost() if callable(of) else 1 if of is None else of
    try:
        return check_cost(cost)
    except InvalidOption as error:
        raise InvalidJob(f"{job.name}: {error}") from None


def _key(job: Any, payload: bytes, of: str | Callable[..., str | None] | None) -> str | None:
    if of is None:
        return None
    if callable(of):
        value = job.rate_key()
        return None if value is None else checked_text(job, "rate_key", value)
    return _text_of(field_value(job, json.loads(payload), of))


def _text_of(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, sort_keys=True)
