"""Keys of unique jobs, and what a dispatch does about them."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outbox import Job
from outbox.envelope import Headers, serialize
from outbox.errors import ConfigurationError, InvalidJob, InvalidOption
from outbox.options import JobOptions
from outbox.policies.base import Policies
from outbox.policies.slots import SLOTS
from outbox.policies.unique import (
    Holder,
    OnConflict,
    Outcome,
    check_unique,
    debounced_until,
    in_lock_order,
    key_of_text,
    key_of_values,
    on_dispatch,
    slot_of,
)

NOW = datetime(2026, 3, 1, tzinfo=UTC)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
payloads = st.dictionaries(st.text(), values, max_size=5)


def seconds(number: float) -> datetime:
    return NOW + timedelta(seconds=number)


@given(payloads, st.randoms())
def test_a_key_is_the_same_however_the_json_is_written(payload: dict[str, object], order: random.Random) -> None:
    names = list(payload)
    order.shuffle(names)
    other = json.dumps({name: payload[name] for name in names}, indent=2, ensure_ascii=True)
    assert key_of_values("a.Job", payload) == key_of_values("a.Job", json.loads(other))


@given(payloads, payloads)
def test_other_fields_have_another_key(one: dict[str, object], other: dict[str, object]) -> None:
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (key_of_values("a.Job", one) == key_of_values("a.Job", other)) is same


def test_a_key_is_that_of_chosen_fields_of_one_job() -> None:
    one, other = ({"customer_id": 7, "reason": reason} for reason in "ab")
    by_customer = key_of_values("a.Job", {"customer_id": 7})
    assert len(by_customer) == 32
    keys = {
        by_customer,
        key_of_values("a.Job", one),
        key_of_values("a.Job", other),
        key_of_values("b.Job", {"customer_id": 7}),
        key_of_text("a.Job", '{"customer_id":7}'),
        key_of_text("a.Job", "7"),
        key_of_text("a.Jo", "b7"),
    }
    assert len(keys) == 7


def test_keys_spread_over_the_slots_and_are_locked_in_their_order() -> None:
    keys = [key_of_text("a.Job", str(number)) for number in range(20_000)]
    assert len({slot_of(key) for key in keys}) > SLOTS * 0.95
    ordered = in_lock_order([*keys[:100], *reversed(keys[:100])])
    assert len(ordered) == 100
    assert ordered == sorted(ordered)
    assert [slot_of(key) for key in ordered] == sorted(slot_of(key) for key in ordered), "one order for both"


@pytest.mark.parametrize(
    ("holder", "ignore", "refuse", "replace"),
    [
        (None, Outcome.INSERT, Outcome.INSERT, Outcome.INSERT),
        (Holder(True, seconds(60)), Outcome.JOIN, Outcome.REFUSE, Outcome.REPLACE),
        (Holder(True, seconds(-5)), Outcome.JOIN, Outcome.REFUSE, Outcome.REPLACE),
        (Holder(True, seconds(-6)), Outcome.INSERT, Outcome.INSERT, Outcome.INSERT),
        (Holder(False, seconds(0)), Outcome.INSERT, Outcome.INSERT, Outcome.INSERT),
        (Holder(False, seconds(-6), held_until=seconds(1)), Outcome.JOIN, Outcome.REFUSE, Outcome.INSERT),
        (Holder(True, seconds(60), held_until=seconds(0)), Outcome.INSERT, Outcome.INSERT, Outcome.INSERT),
    ],
)
def test_a_dispatch_meets_a_key(holder: Holder | None, ignore: Outcome, refuse: Outcome, replace: Outcome) -> None:
    assert on_dispatch(holder, OnConflict.IGNORE, NOW) is ignore
    assert on_dispatch(holder, OnConflict.RAISE, NOW) is refuse
    assert on_dispatch(holder, OnConflict.REPLACE, NOW) is replace


@given(st.lists(st.floats(0, 30), min_size=1, max_size=50), st.floats(0.1, 10), st.floats(0.1, 100))
def test_a_debounced_job_waits_for_quiet_but_not_for_ever(gaps: list[float], quiet: float, most: float) -> None:
    first, now = NOW, NOW
    for gap in gaps:
        due = debounced_until(first, now, quiet, most)
        assert now <= due <= max(now, first + timedelta(seconds=most))
        assert due <= now + timedelta(seconds=quiet)
        if now + timedelta(seconds=gap) >= due:
            return
        now += timedelta(seconds=gap)
    assert debounced_until(first, now, quiet, None) == now + timedelta(seconds=quiet)


def test_the_option_unique() -> None:
    assert check_unique(True) is True
    assert check_unique(["b", "a", "b"]) == ("a", "b")
    for wrong in ([], "customer_id", 7, [7]):
        with pytest.raises(InvalidOption, match=r"unique (is True|lists the names)"):
            check_unique(wrong)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"unique": ["client"]}, "no field 'client'"),
        ({"unique": "number"}, "a list of the job's fields"),
        ({"unique": True, "unique_until": "finish"}, "unique_until is 'start', 'end', or seconds"),
        ({"unique": True, "unique_until": 0}, "unique_until is"),
        ({"unique": True, "on_conflict": "skip"}, "on_conflict is one of ignore, raise, replace"),
        ({"unique": True, "unique_until": "end", "when_running": "wait"}, "when_running is 'queue_one' or 'skip'"),
        ({"unique": True, "when_running": "skip"}, "goes with unique_until='end'"),
        ({"unique": True, "max_wait": 5}, "set `debounce` as well"),
        ({"unique": True, "debounce": 0}, "seconds over 0"),
        ({"debounce": 5}, "set `unique` as well"),
        ({"unique": False, "on_conflict": "raise"}, "set `unique` as well"),
    ],
)
def test_a_class_that_says_it_wrongly(attributes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        type("Wrong", (Numbered,), {"__module__": __name__, **attributes})


def test_a_dispatch_decides_for_a_class_that_says_more() -> None:
    """What the class says of its own choice is not about that of the dispatch."""
    assert serialize(Thorough()).policies == Policies.UNIQUE
    plain = serialize(Thorough(), JobOptions.checked(unique=False))
    assert (plain.headers, plain.policies, plain.delay) == ("{}", None, 0.0)
    for until in ("start", 60):
        headers = Headers.load(serialize(Thorough(), JobOptions.checked(unique_until=until)).headers)
        assert headers.unique is not None
        assert headers.unique.until == until
    for wrong in ({"unique": False, "debounce": 5}, {"unique_until": "start", "when_running": "skip"}):
        with pytest.raises(InvalidOption, match="set `unique` as well|goes with unique_until"):
            serialize(Thorough(), JobOptions.checked(**wrong))  # type: ignore[arg-type]


def test_a_method_that_makes_no_key() -> None:
    with pytest.raises(ConfigurationError, match="called and not awaited"):

        class Awaited(Job):
            async def unique_key(self) -> str:
                return ""

    with pytest.raises(ConfigurationError, match="without arguments"):

        class Asks(Job):
            def unique_key(self, what: str) -> str:
                return what

    with pytest.raises(InvalidJob, match="unique_key returned 7, which is no text"):
        serialize(KeyIsNumber())


class Numbered(Job):
    number: int = 0

    async def handle(self) -> None: ...


class Thorough(Numbered):
    unique = True
    unique_until = "end"
    on_conflict = "replace"
    when_running = "skip"
    debounce = 5
    max_wait = 60


class KeyIsNumber(Job):
    def unique_key(self) -> str:
        return 7  # type: ignore[return-value]

    async def handle(self) -> None: ...


def test_what_is_stored_with_a_unique_job() -> None:
    plain = serialize(Numbered())
    assert (plain.headers, plain.policies) == ("{}", None)
    options = JobOptions.checked(unique=["number"], unique_until=timedelta(minutes=1), debounce=5, max_tries=2)
    envelope = serialize(Numbered(number=7), options)
    assert (envelope.policies, envelope.delay) == (Policies.UNIQUE, 5.0)
    headers = Headers.load(envelope.headers)
    assert headers.options.max_tries == 2
    assert headers.unique is not None
    assert headers.unique.key_bytes == key_of_values(Numbered.name, {"number": 7})
    assert (headers.unique.until, headers.unique.on_conflict, headers.unique.debounce) == (60.0, "ignore", 5.0)
    assert serialize(Numbered(), JobOptions.checked(unique=True, debounce=5, delay=60)).delay == 60.0
