"""Options that limit attempts: what a class and a dispatch may say, and what is made of it."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from outbox.envelope import Headers, serialize
from outbox.errors import ConfigurationError, InvalidOption
from outbox.job import Job
from outbox.options import NO_OPTIONS, JobOptions
from outbox.policies.attempt_limits import AttemptCounts, AttemptLimits, described, limits_of

NOW = datetime(2026, 11, 29, 9, 0, tzinfo=UTC)


class Plain(Job):
    async def handle(self) -> None: ...


class Limited(Job):
    retry_until = timedelta(hours=1)
    max_exceptions = 3
    fail_on_timeout = True
    expires_after = 60
    on_expired = "drop"

    async def handle(self) -> None: ...


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"retry_until": 0}, "retry_until is seconds (up to ten years), a timedelta or an aware datetime, over 0"),
        ({"retry_until": "1h"}, "retry_until is seconds"),
        ({"retry_until": datetime(2026, 1, 1)}, "needs a time zone"),  # noqa: DTZ001 - that is the mistake
        ({"retry_until": datetime.min.replace(tzinfo=timezone(timedelta(hours=1)))}, "that a calendar in UTC has"),
        ({"max_exceptions": 0}, "max_exceptions is a whole number from 1 to 65535, not 0"),
        ({"max_exceptions": True}, "max_exceptions is a whole number"),
        ({"max_snoozes": 1.5}, "max_snoozes is a whole number"),
        ({"fail_on_timeout": 1}, "fail_on_timeout is True or False, not 1"),
        ({"expires_after": -1}, "expires_after is seconds (up to ten years) or a timedelta, over 0, not -1"),
        ({"expires_after": 1, "on_expired": "forget"}, "on_expired is 'fail' or 'drop', not 'forget'"),
        ({"dispatch_if": "yes"}, "dispatch_if is True or False, not 'yes'"),
    ],
)
def test_a_wrong_value_is_refused_by_a_dispatch_and_a_class(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidOption, match=re.escape(said)):
        JobOptions.checked(**options)
    with pytest.raises(ConfigurationError, match=re.escape(said)):
        type(Job)("Wrong", (Job,), {"__module__": __name__, "handle": lambda self: None} | options)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"retry_until": NOW}, "retry_until of a class is seconds or a timedelta"),
        ({"on_expired": "drop"}, "on_expired says what becomes of a job after expires_after, which is not set"),
        ({"dispatch_if": lambda self, other: True}, "`dispatch_if` is called without arguments"),
    ],
)
def test_a_class_is_refused_whose_options_do_not_go_together(body: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(said)):
        type(Job)("Wrong", (Job,), {"__module__": __name__, "handle": lambda self: None} | body)


def test_a_condition_that_would_have_to_be_awaited_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="make it a plain `def`"):

        class Awaited(Job):
            async def dispatch_if(self) -> bool:
                return True


def test_a_dispatch_goes_before_the_class() -> None:
    assert limits_of(Plain, NO_OPTIONS) is None
    limits = limits_of(Limited, JobOptions.checked(retry_until=5, fail_on_timeout=False))
    assert limits == AttemptLimits(5.0, 3, fail_on_timeout=False, expires_after=60.0, on_expired="drop")
    assert limits.timed


@pytest.mark.parametrize("until", [90, timedelta(seconds=90), NOW, NOW.astimezone(timezone(timedelta(hours=2)))])
def test_limits_of_a_dispatch_are_in_its_headers(until: Any) -> None:
    checked = JobOptions.checked(retry_until=until, max_snoozes=2, on_expired="drop", expires_after=9)
    headers = Headers.load(serialize(Plain(), checked).headers)
    assert headers.options.retry_until == (NOW if isinstance(until, datetime) else 90.0)
    assert (headers.options.max_snoozes, headers.options.on_expired, headers.counts) == (2, "drop", None)
    assert serialize(Limited()).headers == "{}", "what the class says is not stored"
    counted = headers.model_copy(update={"counts": AttemptCounts(snoozes=1)})
    assert Headers.load(counted.dump()) == counted


def test_the_time_that_is_left_is_counted_from_the_dispatch_or_to_a_time() -> None:
    later = NOW + timedelta(seconds=40)
    assert AttemptLimits(retry_until=60.0).retry_seconds(NOW, later) == 20
    assert AttemptLimits(retry_until=NOW).retry_seconds(NOW, later) == -40
    assert AttemptLimits(max_exceptions=1).retry_seconds(NOW, later) is None
    assert AttemptLimits(expires_after=39.0).expired(NOW, later)
    assert not AttemptLimits(expires_after=40.0).expired(NOW, later)


@pytest.mark.parametrize("delay", [60, timedelta(minutes=2), datetime.now(UTC) + timedelta(hours=12)])
def test_a_delay_beyond_the_expiry_is_refused(delay: Any) -> None:
    with pytest.raises(InvalidOption, match="ends when the job has expired: raise expires_after, or shorten the delay"):
        serialize(Limited(), JobOptions.checked(delay=delay))
    assert serialize(Limited(), JobOptions.checked(delay=delay, expires_after=timedelta(days=1)))


def test_an_operator_reads_the_limits_in_words() -> None:
    limits = AttemptLimits(NOW, 3, True, 2, 60.0, "drop")
    assert described(limits, AttemptCounts(exceptions=1)) == [
        "no retry after 2026-11-29 09:00:00 UTC",
        "fails with exception 3; 1 so far",
        "fails when an attempt times out",
        "at most 2 snoozes; 0 so far",
        "dropped if no attempt has begun 60 s after its dispatch",
    ]
    assert described(None, AttemptCounts()) == []
