"""The table of options, and those who read it: the class, the dispatch, the headers and the worker's retry policy."""

from __future__ import annotations

import inspect
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

import outbox
import outbox.sync
from outbox import Backoff, Job, WorkerOptions
from outbox.drivers.values import Claim
from outbox.envelope import NO_HEADERS, Headers, serialize
from outbox.errors import ConfigurationError, InvalidOption, InvalidPayload
from outbox.ids import new_token
from outbox.options import (
    CLASS_OPTIONS,
    DISPATCH_OPTIONS,
    HEADER_OPTIONS,
    OPTIONS,
    WORKER_OPTIONS,
    DispatchOptions,
    JobOptions,
    SetBy,
)
from outbox.relay.route import from_relay_row, to_relay_row
from outbox.runtime.execution.retry_policy import RetryPolicy
from outbox.settlement import Fence
from outbox.work import cli

WRONG = object()
GIVEN: dict[str, Any] = {
    "connection": "redis",
    "queue": "slow",
    "delay": 30.0,
    "priority": 9,
    "max_tries": 7,
    "timeout": 8.5,
    "backoff": Backoff([9, 10], jitter=0.5),
    "concurrency_key": "customer_id",
    "concurrency_limit": 3,
    "on_full": "skip",
    "ordering_key": "customer_id",
    "on_failed": "skip",
    "ordering": "strict",
    "fair_key": "customer_id",
    "fair_weight": 2,
    "rate": "100/m",
    "burst": 20,
    "rate_key": "customer_id",
    "cost": 3,
    "align": "minute",
    "unique": True,
    "unique_until": "end",
    "on_conflict": "replace",
    "when_running": "skip",
    "debounce": 5.0,
    "max_wait": 60.0,
    "retry_until": 3600.0,
    "max_exceptions": 3,
    "fail_on_timeout": True,
    "max_snoozes": 4,
    "expires_after": 90.0,
    "on_expired": "drop",
    "dispatch_if": False,
    "encrypt": True,
    "keep_for": 3600.0,
}
"""A value other than the default, for each option."""
KEYS = {"concurrency_key", "ordering_key", "fair_key"}
RATES = {"rate", "burst", "rate_key", "cost", "align"}
FIELD = {"__annotations__": {"customer_id": int}}

UNIQUE = {name: {"unique": True} for name in ("unique", "unique_until", "on_conflict", "debounce")}
UNIQUE |= {"when_running": UNIQUE["unique"] | {"unique_until": "end"}, "max_wait": UNIQUE["unique"] | {"debounce": 5.0}}
"""Options of unique jobs, and what each of them needs beside it."""
EXPIRES = {"on_expired": {"expires_after": 90.0}}


class Ping(Job):
    async def handle(self) -> None: ...


def test_there_is_a_value_for_each_option_in_these_tests() -> None:
    assert GIVEN.keys() == OPTIONS.keys()


@pytest.mark.parametrize("name", CLASS_OPTIONS)
def test_a_class_has_each_option_with_its_default_and_checks_it(name: str) -> None:
    assert getattr(Job, name) == OPTIONS[name].default
    others = {"rate": GIVEN["rate"]} if name in RATES else {**UNIQUE, **EXPIRES}.get(name, {})
    right = {"__module__": __name__, **FIELD, **others, name: GIVEN[name]}
    assert getattr(type("Right", (Job,), right), name) == GIVEN[name]
    with pytest.raises(ConfigurationError, match="Wrong"):
        type("Wrong", (Job,), {**right, name: WRONG})


def test_a_connection_without_a_name_is_not_the_default() -> None:
    with pytest.raises(InvalidOption, match="the name of one, not ''"):
        JobOptions.checked(connection="")
    with pytest.raises(ConfigurationError, match="the name of one, not ''"):
        type("Wrong", (Job,), {"__module__": __name__, "connection": ""})


@pytest.mark.filterwarnings("ignore:Field name")
@pytest.mark.parametrize("name", CLASS_OPTIONS)
def test_no_option_of_a_class_can_be_a_field(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"`{name}` belongs to the job class"):
        type("Shadowing", (Job,), {"__module__": __name__, "__annotations__": {name: int}})


@pytest.mark.parametrize("name", DISPATCH_OPTIONS)
def test_a_dispatch_takes_each_option_and_checks_it(name: str) -> None:
    assert getattr(JobOptions.checked(**{name: GIVEN[name]}), name) == GIVEN[name]  # type: ignore[misc]
    assert JobOptions.checked(**{name: None}) is JobOptions.checked()  # type: ignore[misc]
    with pytest.raises(InvalidOption):
        JobOptions.checked(**{name: WRONG})  # type: ignore[misc]


@pytest.mark.parametrize(
    "function", [outbox.dispatch, outbox.dispatch_many, outbox.sync.dispatch, outbox.sync.dispatch_many]
)
def test_the_signature_of_a_dispatch_names_each_option(function: Any) -> None:
    assert list(inspect.signature(function).parameters)[1:] == ["session", *DISPATCH_OPTIONS]
    assert DispatchOptions.__optional_keys__ == set(DISPATCH_OPTIONS)


@pytest.mark.parametrize("name", HEADER_OPTIONS)
def test_headers_carry_each_option_that_the_worker_reads(name: str) -> None:
    options = replace(JobOptions(), **{name: GIVEN[name]})
    text = serialize(Ping(), options).headers
    assert list(json.loads(text)) == [name]
    assert Headers.load(text) == Headers(options=options)


@pytest.mark.parametrize("name", UNIQUE)
def test_headers_carry_what_makes_a_job_unique(name: str) -> None:
    options = replace(JobOptions(), **UNIQUE[name], **{name: GIVEN[name]}) if name not in UNIQUE[name] else None
    text = serialize(Ping(), options or replace(JobOptions(), unique=True)).headers
    assert list(json.loads(text)) == ["unique"]


@pytest.mark.parametrize("name", sorted(OPTIONS.keys() - set(HEADER_OPTIONS) - KEYS - RATES - UNIQUE.keys()))
def test_the_other_options_are_not_in_the_headers(name: str) -> None:
    assert serialize(Ping(), replace(JobOptions(), **{name: GIVEN[name]})).headers == "{}"


def test_a_dispatch_goes_before_the_class_and_the_class_before_the_worker() -> None:
    of_worker = RetryPolicy.default(WorkerOptions(max_tries=1, timeout=1, backoff=(1,)))
    assert RetryPolicy._fields[:-1] == WORKER_OPTIONS
    assert of_worker.of(Ping, NO_HEADERS) is of_worker
    for name in WORKER_OPTIONS:
        of_class = type("Set", (Job,), {"__module__": __name__, name: OPTIONS[name].check(2)})
        by_class = of_worker.of(of_class, NO_HEADERS)
        by_dispatch = of_worker.of(of_class, Headers(options=replace(JobOptions(), **{name: GIVEN[name]})))
        assert by_class == of_worker._replace(**{name: OPTIONS[name].check(2)})
        assert by_dispatch == of_worker._replace(**{name: GIVEN[name]})


def test_what_a_worker_can_set_has_a_setting_and_a_flag() -> None:
    flags = {parameter.name for parameter in cli.params}
    assert set(WORKER_OPTIONS) <= WorkerOptions.model_fields.keys() & flags
    assert all(SetBy.CLASS in OPTIONS[name].set_by for name in WORKER_OPTIONS)


def test_headers_of_a_job_without_options_are_empty() -> None:
    assert serialize(Ping()).headers == "{}"
    assert Headers.load("{}") is NO_HEADERS
    assert Headers().dump() == NO_HEADERS.dump() == "{}"


def test_headers_come_back_as_they_were() -> None:
    options = JobOptions(max_tries=3, timeout=1.5, backoff=Backoff([1, 2], jitter=0.5))
    headers = Headers(options=options, trace={"traceparent": "00-1"}, relayed_until=datetime.now(UTC))
    assert Headers.load(headers.dump()) == headers


def test_headers_that_were_written_before_are_read() -> None:
    text = '{"max_tries": 3, "backoff": {"delays": [1.0], "jitter": 0.0}, "relayed_until": "2030-01-01T00:00:00+00:00"}'
    headers = Headers.load(text)
    assert headers.options == JobOptions(max_tries=3, backoff=Backoff([1]))
    assert headers.relayed_until == datetime(2030, 1, 1, tzinfo=UTC)


def test_the_relay_keeps_headers_of_a_later_version() -> None:
    later = {"max_tries": 3, "expires_after": 60, "nested": {"of": [1, None]}, "nothing": None}
    sent = to_relay_row(serialize(Ping())._replace(headers=json.dumps(later)), "redis")
    assert json.loads(sent.headers) == later | {"relayed_to": "default"}
    claim = Claim(Fence(sent.id, new_token()), sent.queue, sent.name, 5, sent.payload, sent.headers, 1, False, 0.0)
    assert json.loads(from_relay_row(claim).headers) == later


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "3",
        "[" * 10_000,
        "\ud800",
        '{"a": "\\ud800"}',
        '{"max_tries": 0}',
        '{"timeout": "x"}',
        '{"backoff": 3}',
        '{"backoff": {}}',
        '{"relayed_to": "A b"}',
        '{"relayed_delay": "1"}',
        '{"relayed_until": "2030-01-01T00:00:00"}',
        '{"trace": 5}',
    ],
)
def test_broken_headers_are_an_invalid_payload(text: str) -> None:
    with pytest.raises(InvalidPayload, match="headers"):
        Headers.load(text)
