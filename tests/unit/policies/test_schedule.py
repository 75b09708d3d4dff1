"""Schedules: both changes of summer time, ticks that were missed, jobs that overlap."""

from __future__ import annotations

from bisect import bisect_right
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outbox.errors import InvalidOption
from outbox.policies.schedule import (
    LONGEST_NAME,
    MOST_TICKS,
    Definition,
    Due,
    Misfire,
    Overlap,
    TickAction,
    check_definition,
    check_name,
    due,
    jitter,
    on_overlap,
)
from outbox.policies.timetable import Cron, Every, Timetable, parse_timetable

BERLIN = "Europe/Berlin"
SPRING, AUTUMN = datetime(2026, 3, 29, tzinfo=UTC), datetime(2026, 10, 25, tzinfo=UTC)
# With changes of an hour, of half an hour, at midnight, and to the west and the east of Greenwich.
CHANGES = [
    (BERLIN, SPRING),
    (BERLIN, AUTUMN),
    ("America/New_York", datetime(2026, 3, 8, tzinfo=UTC)),
    ("America/New_York", datetime(2026, 11, 1, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2026, 4, 4, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2026, 10, 3, tzinfo=UTC)),
    ("Asia/Beirut", datetime(2026, 3, 29, tzinfo=UTC)),
    ("America/Sao_Paulo", datetime(2018, 11, 4, tzinfo=UTC)),
    ("America/Sao_Paulo", datetime(2018, 2, 18, tzinfo=UTC)),
    ("Africa/Casablanca", datetime(2026, 2, 15, tzinfo=UTC)),
]
LINES = ["30 2 * * *", "0 2,3 * * *", "0,30 2 * * *", "15 0 * * *", "30 1-3 * * *", "0 * * * *", "*/20 * * * *",
         "*/30 2 * * *", "0 0 * * sun", "5 */2 * * *"]  # fmt: skip


def ticks(timetable: Timetable, start: datetime, end: datetime) -> list[datetime]:
    found, tick = [], timetable.after(start)
    while tick is not None and tick <= end:
        found.append(tick)
        tick = timetable.after(tick)
    return found


def local(line: str, day: datetime, tz: str = BERLIN) -> list[str]:
    """The ticks of a day and its neighbours' nights, by the clock on the wall."""
    found = ticks(Cron(line, tz), day - timedelta(hours=1), day + timedelta(hours=5))
    return [tick.astimezone(ZoneInfo(tz)).strftime("%H:%M%z") for tick in found]


def test_when_summer_time_begins() -> None:
    assert local("30 2 * * *", SPRING) == ["03:00+0200"], "once, at the end of the hour that is left out"
    assert local("0,30 2 * * *", SPRING) == ["03:00+0200"], "two ticks of that hour are one"
    assert local("0 2,3 * * *", SPRING) == ["03:00+0200"]
    assert local("0 * * * *", SPRING)[:4] == ["01:00+0100", "03:00+0200", "04:00+0200", "05:00+0200"]
    assert local("30 3 * * *", SPRING) == ["03:30+0200"]


def test_when_summer_time_ends() -> None:
    assert local("30 2 * * *", AUTUMN) == ["02:30+0200"], "once, in the first of the two hours"
    assert local("30 * * * *", AUTUMN)[1:4] == ["02:30+0200", "02:30+0100", "03:30+0100"], "time passes twice"
    second = datetime(2026, 10, 25, 1, 10, tzinfo=UTC)
    assert second.astimezone(ZoneInfo(BERLIN)).strftime("%H:%M%z") == "02:10+0100"
    following = Cron("30 2 * * *", BERLIN).after(second)
    assert following == datetime(2026, 10, 26, 1, 30, tzinfo=UTC), "not the tick of the hour before"


@pytest.mark.parametrize(("tz", "day"), CHANGES)
@pytest.mark.parametrize("line", LINES)
def test_around_a_change_of_the_clock(tz: str, day: datetime, line: str) -> None:
    """From every minute on: the next tick is later, the last one is not, and no start changes which ticks there are."""
    if tz == "Australia/Lord_Howe" and "*" in " ".join(line.split()[:2]):
        return  # see `Cron`
    cron = Cron(line, tz)
    start, end = day - timedelta(days=2), day + timedelta(days=2)
    every = ticks(cron, start, end)
    assert all(one < other for one, other in pairwise(every))
    moment = day - timedelta(hours=14)
    while moment < day + timedelta(hours=20):
        following = bisect_right(every, moment)
        if following < len(every):
            assert cron.after(moment) == every[following]
        if following:
            assert cron.until(moment) == every[following - 1]
        moment += timedelta(minutes=10)


@pytest.mark.parametrize(("tz", "day"), CHANGES)
def test_a_daily_tick_comes_once_a_day(tz: str, day: datetime) -> None:
    for hour in range(24):
        found = ticks(Cron(f"30 {hour} * * *", tz), day - timedelta(days=4), day + timedelta(days=4))
        days = [tick.astimezone(ZoneInfo(tz)).date() for tick in found]
        assert days == sorted(set(days))
        assert all((other - one).days == 1 for one, other in pairwise(days))


@given(st.integers(1, 200_000), st.integers(0, 2**31))
def test_ticks_of_a_period_are_the_same_for_every_worker(period: int, second: int) -> None:
    every = Every(period)
    moment = datetime.fromtimestamp(second, UTC)
    assert every.until(moment) <= moment < every.after(moment)
    assert every.after(moment) - every.until(moment) == timedelta(seconds=period)
    assert every.until(moment).timestamp() % period == 0


NOW = datetime(2026, 3, 2, 12, 0, 30, tzinfo=UTC)
HOURLY = Cron("@hourly")


def hours_ago(number: int) -> datetime:
    return NOW.replace(second=0) - timedelta(hours=number)


@pytest.mark.parametrize("misfire", Misfire)
def test_a_tick_on_time_runs(misfire: Misfire) -> None:
    assert due(HOURLY, hours_ago(0), NOW, misfire, grace=0) == Due((hours_ago(0),), hours_ago(-1))
    assert due(HOURLY, hours_ago(-1), NOW, misfire) == Due((), hours_ago(-1)), "not due yet"


def test_ticks_that_were_missed() -> None:
    later = NOW + timedelta(minutes=20)
    following = hours_ago(-1)
    assert due(HOURLY, hours_ago(5), later, Misfire.ONCE) == Due((hours_ago(0),), following)
    assert due(HOURLY, hours_ago(5), later, Misfire.ONCE, grace=600) == Due((), following, hours_ago(0))
    assert due(HOURLY, hours_ago(5), later, Misfire.SKIP) == Due((), following, hours_ago(0))
    everything = tuple(hours_ago(number) for number in range(5, -1, -1))
    assert due(HOURLY, hours_ago(5), later, Misfire.ALL) == Due(everything, following)
    latest = tuple(hours_ago(number) for number in range(MOST_TICKS - 1, -1, -1))
    assert due(HOURLY, hours_ago(5_000), later, Misfire.ALL) == Due(latest, following)


def test_a_schedule_whose_timetable_has_changed() -> None:
    at_midnight = Cron("@daily")
    assert due(at_midnight, hours_ago(1), NOW, Misfire.ALL) == Due((), datetime(2026, 3, 3, tzinfo=UTC))


@settings(max_examples=50)
@given(st.sampled_from([HOURLY, Cron("30 2 * * *", BERLIN), Every(90)]), st.lists(st.integers(1, 10**5), max_size=30))
def test_every_tick_becomes_one_job_however_often_a_worker_looks(timetable: Timetable, waits: list[int]) -> None:
    start = now = AUTUMN - timedelta(days=1)
    next_at, run = timetable.after(start), []
    for wait in waits:
        now += timedelta(seconds=wait)
        assert next_at is not None
        decided = due(timetable, next_at, now, Misfire.ALL)
        run += decided.ticks
        assert decided.next_at is not None
        assert decided.next_at > now
        next_at = decided.next_at
    expected = ticks(timetable, start, now)
    assert run == sorted(set(run))
    assert set(run) <= set(expected)
    if max(waits, default=0) < 90 * MOST_TICKS:
        assert run == expected


@pytest.mark.parametrize(
    ("overlap", "waits", "runs", "both"),
    [
        (Overlap.ALLOW, TickAction.INSERT, TickAction.INSERT, TickAction.INSERT),
        (Overlap.SKIP, TickAction.SKIP, TickAction.SKIP, TickAction.SKIP),
        (Overlap.QUEUE_ONE, TickAction.SKIP, TickAction.INSERT_PARKED, TickAction.SKIP),
        (Overlap.CANCEL, *[TickAction.CANCEL_AND_INSERT] * 3),
    ],
)
def test_overlap(overlap: Overlap, waits: TickAction, runs: TickAction, both: TickAction) -> None:
    assert on_overlap(overlap, waiting=False, running=False) is TickAction.INSERT
    assert on_overlap(overlap, waiting=True, running=False) is waits
    assert on_overlap(overlap, waiting=False, running=True) is runs
    assert on_overlap(overlap, waiting=True, running=True) is both


def test_jitter_is_the_same_for_every_worker_and_differs_between_ticks() -> None:
    tick = datetime(2026, 3, 2, 7, tzinfo=ZoneInfo(BERLIN))
    assert jitter("digest:7", tick, 30) == jitter("digest:7", tick.astimezone(UTC), 30)
    spread = {jitter("digest:7", tick + timedelta(days=day), 30) for day in range(100)}
    assert len(spread) == 100
    assert all(timedelta() <= each < timedelta(seconds=30) for each in spread)
    assert jitter("digest:7", tick, 0) == timedelta()


def checked(when: object = "@daily", **given: object) -> Definition:
    values: dict[str, object] = {"every": None, "tz": "UTC", "misfire": "once", "grace": 60, "overlap": "allow"}
    return check_definition(when, **{**values, "jitter": 0, **given})


def test_a_declaration_is_known_by_its_hash() -> None:
    one = checked("0 7 * * *", tz=BERLIN, jitter=30)
    assert one.hash("digest") == checked("0 7 * * *", tz=BERLIN, jitter=timedelta(seconds=30)).hash("digest")
    assert one.hash("digest") != checked("0 8 * * *", tz=BERLIN, jitter=30).hash("digest")
    assert one.hash("digest") != one.hash("other")


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Cron("0 7 * *"),
        lambda: Cron("61 * * * *"),
        lambda: Cron("0 0 30 2 *"),
        lambda: Cron("@often"),
        lambda: Cron("0 7 * * *", "Europe/Nowhere"),
        lambda: Cron("0 7 * * *", "../etc/passwd"),
        lambda: Every(0),
        lambda: Every.parse("0s"),
        lambda: parse_timetable("1.5h"),
        lambda: parse_timetable("400d"),
        lambda: parse_timetable("* " * 5_000),
        lambda: parse_timetable("0 7 * * *" + "x" * 10_000),
        lambda: parse_timetable(None),
        lambda: parse_timetable(""),
        lambda: checked(tz=None),
        lambda: checked(tz="x" * 10_000),
        lambda: checked(misfire="twice"),
        lambda: checked(misfire=None),
        lambda: checked(grace=-1),
        lambda: checked(grace="an hour"),
        lambda: checked(grace=float("nan")),
        lambda: checked(overlap="queue"),
        lambda: checked(jitter=-1),
        lambda: checked(jitter=True),
        lambda: checked(jitter=90_000),
        lambda: checked("@daily", every="90s"),
        lambda: checked(None),
        lambda: checked(None, every="90"),
        lambda: checked(None, every=90),
        lambda: checked(None, every=timedelta(seconds=1.5)),
        lambda: checked(None, every=timedelta(seconds=-5)),
        lambda: check_name(""),
        lambda: check_name("x" * (LONGEST_NAME + 1)),
        lambda: check_name("büro"),
        lambda: check_name("two\nlines"),
        lambda: check_name(7),
        lambda: check_name("digest "),
        lambda: check_name(" digest"),
    ],
)
def test_what_is_no_schedule(wrong: object) -> None:
    with pytest.raises(InvalidOption):
        wrong()


def test_a_time_between_ticks() -> None:
    assert list(map(Every.parse, ("90s", "5m", "2h", "1d"))) == list(map(Every, (90, 300, 7200, 86_400)))
    assert Every.parse("0 7 * * *") is None
    assert checked(None, every=timedelta(minutes=2)).timetable == Every(120)


def test_a_timetable_in_words() -> None:
    assert Cron("0 7 * * mon-fri", BERLIN).words() == "At 07:00 on Monday through Friday, Europe/Berlin"
    assert [Every(seconds).words() for seconds in (1, 90, 3600, 7200)] == [
        "Every second",
        "Every 90 seconds",
        "Every hour",
        "Every 2 hours",
    ]
