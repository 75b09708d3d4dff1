"""Rates by the clock of nobody: what is admitted in any window of time, and when a refused job is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outbox import Job, RateLimit, limits
from outbox.envelope import Headers, serialize
from outbox.errors import ConfigurationError, InvalidOption
from outbox.options import JobOptions
from outbox.policies.rate import SECOND, Rate, State, Window, parse_rate, take_all

NOW = 1_800_000_000 * SECOND
rates = st.builds(Rate, st.integers(1, 10_000), st.sampled_from([SECOND, 7 * SECOND, 60 * SECOND]), st.integers(1, 50))
gaps = st.lists(st.integers(0, 20 * SECOND), min_size=1, max_size=100)


@given(rates, gaps)
def test_no_span_of_time_admits_more_than_its_rate_and_one_burst(rate: Rate, gaps: list[int]) -> None:
    state, now, admitted = State(), NOW, []
    for gap in gaps:
        now += gap
        taken = rate.take(state, now)
        state = taken.state
        if taken.admitted:
            admitted.append(now)
    for first, start in enumerate(admitted):
        for number, end in enumerate(admitted[first:], 1):
            assert number <= rate.burst + (end - start) * rate.count / rate.period + 1e-6


@given(rates, gaps, st.data())
def test_a_refused_job_is_admitted_at_its_time_and_not_before(rate: Rate, gaps: list[int], data: st.DataObject) -> None:
    state, now = State(), NOW
    for gap in gaps:
        now += gap
        cost = data.draw(st.integers(1, rate.burst))
        taken = rate.take(state, now, cost)
        if not taken.admitted:
            assert taken.state == state
            assert taken.retry_at > now
            assert rate.take(state, taken.retry_at, cost).admitted
            assert not rate.take(state, taken.retry_at - 1, cost).admitted
        state = taken.state


def test_an_idle_key_has_its_whole_burst_and_then_the_rate() -> None:
    rate = Rate.parse("60/m", burst=5)
    state, admitted = State(), 0
    while (taken := rate.take(state, NOW)).admitted:
        state, admitted = taken.state, admitted + 1
    assert admitted == 5
    assert taken.retry_at == NOW + SECOND


@given(rates, st.integers(0, 100 * SECOND), st.integers(1, 100 * SECOND))
def test_after_a_429_nothing_runs_before_its_time_and_then_no_burst(rate: Rate, tat: int, wait: int) -> None:
    until = NOW + wait
    state = rate.pushed(State(NOW + tat), until)
    refused = rate.take(state, until - 1)
    assert not refused.admitted
    assert rate.take(state, refused.retry_at).admitted
    if tat == 0:
        assert refused.retry_at == until
    after = rate.take(rate.take(state, refused.retry_at).state, refused.retry_at)
    assert not after.admitted


def test_a_rate_that_is_changed_counts_at_once() -> None:
    state = Rate.parse("1/h").take(State(), NOW).state
    assert not Rate.parse("1/h").take(state, NOW + SECOND).admitted
    assert Rate.parse("1/h", burst=2).take(state, NOW + SECOND).admitted


@given(gaps, st.integers(1, 5))
def test_a_window_of_the_clock_admits_its_count(gaps: list[int], count: int) -> None:
    window = Window.parse(f"{count}/m", align="minute")
    state, now, per_minute = State(), NOW, {}
    for gap in gaps:
        now += gap
        taken = window.take(state, now)
        state = taken.state
        minute = now // window.period
        assert taken.admitted == (per_minute.get(minute, 0) < count)
        if taken.admitted:
            per_minute[minute] = per_minute.get(minute, 0) + 1
        else:
            assert taken.retry_at == (minute + 1) * window.period
            assert window.take(state, taken.retry_at).admitted


def test_a_window_that_a_429_has_closed() -> None:
    window = Window.parse("2/m", align="minute")
    state = window.pushed(window.take(State(), NOW).state, NOW + 61 * SECOND)
    refused = window.take(state, NOW + 119 * SECOND)
    assert (refused.admitted, refused.retry_at) == (False, NOW + 120 * SECOND)
    assert window.take(state, refused.retry_at).admitted
    assert window.pushed(state, NOW) == state


def test_limits_are_taken_together_or_not_at_all() -> None:
    limits = {"b": Rate.parse("1/m"), "a": Rate.parse("1/s"), "c": Rate.parse("9/s", burst=9)}
    first = take_all(limits, {}, NOW)
    assert first.admitted
    assert list(first.states) == ["a", "b", "c"]
    second = take_all(limits, first.states, NOW + SECOND)
    assert (second.admitted, second.states, second.retry_at) == (False, first.states, NOW + 60 * SECOND)


@pytest.mark.parametrize(
    "text",
    ["", "100", "0/s", "1/0s", "1/w", "-1/s", "1.5/s", "1/s/s", "\u0663/s", f"1{' ' * 31}/s", f"{'9' * 5_000}/s"],
)
def test_what_is_no_rate(text: str) -> None:
    with pytest.raises(ConfigurationError, match="is no rate"):
        parse_rate(text)


def test_what_can_be_no_rate_is_refused() -> None:
    assert parse_rate("100 / 10s") == (100, 10 * SECOND)
    for rate in (lambda: Rate(1, 1, 0), lambda: Window(0, 1), lambda: Window.parse("1/s", align="minute")):
        with pytest.raises(ConfigurationError):
            rate()


@given(
    st.builds(Rate, st.integers(1, 10**14), st.integers(1, 10**14).map(lambda days: days * 86_400 * SECOND)),
    st.integers(1, 1_000_000),
    st.integers(1, 1_000_000),
)
def test_no_time_is_later_than_a_bigint_holds(rate: Rate, cost: int, burst: int) -> None:
    rate = Rate(rate.count, rate.period, burst)
    taken = rate.take(State(), NOW, cost)
    assert taken.admitted
    for state in (taken.state, rate.pushed(taken.state, NOW)):
        assert NOW <= state.at < 2**63
        refused = rate.take(state, NOW, cost)
        assert refused.retry_at < 2**63
        assert refused.state.at < 2**63


def test_a_cost_of_more_than_the_burst_takes_its_time_afterwards() -> None:
    rate = Rate.parse("1/s", burst=3)
    taken = rate.take(State(), NOW, 10)
    assert taken.admitted
    refused = rate.take(taken.state, NOW)
    assert refused.retry_at == NOW + 8 * SECOND
    assert Window.parse("3/s", align="second").take(State(), NOW, 4).state.used == 3


@pytest.mark.parametrize("limit", [Rate.parse("5/s", burst=5), Window.parse("5/s", align="second")])
def test_what_is_left_is_what_would_be_admitted(limit: Rate | Window) -> None:
    state = State()
    for left in (5, 3, 1):
        assert limit.left(state, NOW) == left
        state = limit.take(state, NOW, 2 if left > 1 else 1).state
    assert limit.left(state, NOW) == 0
    assert limit.left(limit.given_back(state, 2), NOW) == 2
    assert limit.left(limit.pushed(state, NOW + 3 * SECOND), NOW + SECOND) == 0
    assert limit.reset(limit.pushed(state, NOW + 3600 * SECOND), NOW).at <= NOW + SECOND


async def test_a_cost_that_a_window_never_admits_is_refused() -> None:
    """As a dispatch refuses it: nothing is asked of a database."""
    with pytest.raises(InvalidOption, match="never admits a cost of 11"):
        await limits.take(RateLimit("tests.window", "10/d", align="day").name, 11)


class Bursty(Job):
    rate = "60/m"
    burst = 20

    async def handle(self) -> None: ...


def test_a_dispatch_gives_another_rate_than_that_of_its_class() -> None:
    """Its burst is of its own rate."""
    named = RateLimit("tests.rate.named", "1/s")
    for options, expected in (
        ({"rate": named}, named.terms),
        ({"rate": [named]}, named.terms),
        ({"align": "minute"}, named.terms.model_copy(update={"name": Bursty.name, "rate": "60/m", "align": "minute"})),
        ({"rate": "5/s"}, named.terms.model_copy(update={"name": Bursty.name, "rate": "5/s", "burst": 20})),
    ):
        headers = Headers.load(serialize(Bursty(), JobOptions.checked(**options)).headers)  # type: ignore[arg-type]
        assert headers.rates is not None
        assert headers.rates.limits == (expected,)
    for wrong in ({"rate": named, "burst": 3}, {"align": "minute", "burst": 3}):
        with pytest.raises(InvalidOption, match="burst"):
            serialize(Bursty(), JobOptions.checked(**wrong))  # type: ignore[arg-type]


def test_a_class_whose_cost_its_window_never_admits_is_refused() -> None:
    body = {"__module__": __name__, "rate": "10/m", "align": "minute", "handle": lambda self: None}
    with pytest.raises(ConfigurationError, match="never admits a cost of 11"):
        type("Dear", (Job,), body | {"cost": 11})
    assert serialize(type("Cheap", (Job,), body | {"cost": 10})()).policies
