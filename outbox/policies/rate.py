"""Rate limits: the generic cell rate algorithm, and windows that are aligned to the clock.

A limit keeps one number per key, its theoretical arrival time (TAT): when the key would be idle again if jobs ran
evenly spaced (ITU-T I.371). All times are whole nanoseconds since 1970 by the database's clock, so that no rounding
adds up and every server keeps them in a BIGINT.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, Self, TypeVar

from outbox.errors import ConfigurationError

T = TypeVar("T", str, bytes)

SECOND = 1_000_000_000
_PERIODS = {"s": SECOND, "m": 60 * SECOND, "h": 3600 * SECOND, "d": 86_400 * SECOND}
_RATE = re.compile(r"(\d{1,14})/(\d{0,14})([smhd])", re.ASCII)
_LONGEST = 32
"""Characters of a rate."""
_LATEST = 2**63 - 1
"""Of all times, in nanoseconds since 1970: in the year 2262, the last that a BIGINT holds."""
_ALIGNED = {"second": "s", "minute": "m", "hour": "h", "day": "d"}


class Taken(NamedTuple):
    """``state`` is what to keep, unchanged where nothing was admitted. ``retry_at`` is when the same would be."""

    admitted: bool
    state: State
    retry_at: int


class State(NamedTuple):
    """The row of a limit and a key. ``at`` is the TAT, or the start of a window; ``used`` counts in a window."""

    at: int = 0
    used: int = 0


class Limit(Protocol):
    def take(self, state: State, now: int, cost: int = 1) -> Taken: ...

    def given_back(self, state: State, cost: int) -> State:
        """What was taken before ``state``, and not used."""

    def pushed(self, state: State, until: int) -> State: ...

    def reset(self, state: State, now: int) -> State:
        """The state for a limit that replaces another one: what is left is what the new one would have left."""

    def left(self, state: State, now: int) -> int:
        """How many of cost 1 it admits now."""


@dataclass(frozen=True, slots=True)
class Rate:
    """``count`` per ``period`` nanoseconds, evenly spaced, after up to ``burst`` at once.

    Raises:
        ConfigurationError: one of them is less than 1.
    """

    count: int
    period: int
    burst: int = 1

    def __post_init__(self) -> None:
        if min(self.count, self.period, self.burst) < 1:
            raise ConfigurationError(
                f"a rate and its burst are at least 1: {self.count}/{self.period} ns, {self.burst}"
            )

    @classmethod
    def parse(cls, text: str, burst: int | None = None) -> Self:
        """``100/m`` or ``5/10s``, per s, m, h or d. The burst is 1 unless given.

        Raises:
            ConfigurationError: it is no rate.
        """
        count, period = parse_rate(text)
        return cls(count, period, 1 if burst is None else burst)

    def _span(self, cost: int) -> int:
        """Rounded up, so that the rate is never exceeded."""
        return -(-cost * self.period // self.count)

    def take(self, state: State, now: int, cost: int = 1) -> Taken:
        """A cost of more than the burst is admitted when the key is idle."""
        arrival = max(state.at, now) + self._span(cost)
        retry_at = arrival - self._span(max(cost, self.burst))
        if retry_at > now:
            return Taken(False, state, retry_at)
        return Taken(True, State(min(arrival, _LATEST)), now)

    def given_back(self, state: State, cost: int) -> State:
        return State(max(0, state.at - self._span(cost)))

    def reset(self, state: State, now: int) -> State:
        return State(min(state.at, now + self._span(self.burst)))

    def left(self, state: State, now: int) -> int:
        return max(0, (now + self._span(self.burst) - max(state.at, now)) // self._span(1))

    def pushed(self, state: State, until: int) -> State:
        """After a 429: nothing is admitted before ``until``; then evenly spaced, without a burst."""
        return State(min(max(state.at, until + self._span(self.burst) - self._span(1)), _LATEST))


@dataclass(frozen=True, slots=True)
class Window:
    """``count`` in each ``period`` nanoseconds of the clock, for services that count so.

    Raises:
        ConfigurationError: one of them is less than 1.
    """

    count: int
    period: int

    def __post_init__(self) -> None:
        if min(self.count, self.period) < 1:
            raise ConfigurationError(f"a rate is at least 1: {self.count}/{self.period} ns")

    @classmethod
    def parse(cls, text: str, align: str) -> Self:
        """
        Raises:
            ConfigurationError: it is no rate, or not one per second, minute, hour or day as ``align`` says.
        """
        count, period = parse_rate(text)
        if align not in _ALIGNED or period != _PERIODS[_ALIGNED[align]]:
            raise ConfigurationError(f"a rate that is aligned to the {align} is one per {align}, not {text!r}")
        return cls(count, period)

    def take(self, state: State, now: int, cost: int = 1) -> Taken:
        """A cost of more than the count takes a whole window."""
        cost = min(cost, self.count)
        # A window of later is one that a 429 has closed, or of a clock that was set back.
        start = max(state.at, now - now % self.period)
        used = state.used if start == state.at else 0
        if start > now:
            return Taken(False, state, start)
        if used + cost > self.count:
            return Taken(False, state, start + self.period)
        return Taken(True, State(start, used + cost), now)

    def given_back(self, state: State, cost: int) -> State:
        return State(state.at, max(0, state.used - min(cost, self.count)))

    def reset(self, state: State, now: int) -> State:
        start = now - now % self.period
        return State(start, min(state.used, self.count) if state.at == start else 0)

    def left(self, state: State, now: int) -> int:
        start = now - now % self.period
        if state.at > start:
            return 0
        return max(0, self.count - (state.used if state.at == start else 0))

    def pushed(self, state: State, until: int) -> State:
        start = -(-until // self.period) * self.period
        return max(state, State(start))


class Admission(NamedTuple, Generic[T]):
    """Whether all limits admitted a job; their states, unchanged where one refused; the latest time of a refusal."""

    admitted: bool
    states: Mapping[T, State]
    retry_at: int


def take_all(limits: Mapping[T, Limit], states: Mapping[T, State], now: int, cost: int = 1) -> Admission[T]:
    """All limits or none: a job that one refuses uses up nothing of the others."""
    taken = {name: limits[name].take(states.get(name, State()), now, cost) for name in sorted(limits)}
    refused = [each.retry_at for each in taken.values() if not each.admitted]
    if refused:
        return Admission(False, states, max(refused))
    return Admission(True, {name: each.state for name, each in taken.items()}, now)


def parse_rate(text: str) -> tuple[int, int]:
    match = _RATE.fullmatch(text.replace(" ", "")) if len(text) <= _LONGEST else None
    if match is None or not int(match[1]) or (match[2] and not int(match[2])):
        raise ConfigurationError(f"{text[:_LONGEST]!r} is no rate: write 100/m, or 5/10s (per s, m, h or d)")
    return int(match[1]), int(match[2] or 1) * _PERIODS[match[3]]
