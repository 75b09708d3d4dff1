"""An outage is said once, whoever notices it."""

from __future__ import annotations

from outbox.errors import BackendUnavailable, RequestRefused
from outbox.events import ConnectionDown, ConnectionUp
from outbox.runtime.availability import CLAIM, LOOK, RENEW, SETTLE, Availability, ReconnectBackoff
from tests.unit.runtime.memory import Recorder

GONE = BackendUnavailable("gone")


def test_many_failures_are_one_outage() -> None:
    recorder = Recorder()
    store = Availability("database", recorder.events)
    for begun in range(10):
        store.failed(float("inf"), GONE)
        del begun
    assert store.down
    assert recorder.seen == [ConnectionDown("database", "gone")]
    store.succeeded(float("inf"))
    store.succeeded(float("inf"))
    assert not store.down
    assert [type(event) for event in recorder.seen] == [ConnectionDown, ConnectionUp]


def test_a_call_from_before_the_outage_ended_is_not_a_second_outage() -> None:
    recorder = Recorder()
    store = Availability("database", recorder.events)
    begun_during_the_outage = 0.0
    store.failed(float("inf"), GONE)
    store.succeeded(float("inf"))
    store.failed(begun_during_the_outage, GONE)
    assert not store.down
    assert len(recorder.of(ConnectionDown)) == 1


def test_an_answer_to_a_call_from_before_the_outage_does_not_end_it() -> None:
    recorder = Recorder()
    store = Availability("database", recorder.events)
    store.failed(float("inf"), GONE)
    store.succeeded(0.0)
    assert store.down


def test_a_request_that_is_refused_while_others_are_carried_out_is_one_outage() -> None:
    recorder = Recorder()
    store = Availability("database", recorder.events)
    later = float("inf")
    for _ in range(5):
        store.failed(later, RequestRefused("no right to DELETE"), SETTLE)
        store.succeeded(later, RENEW)
        store.succeeded(later, LOOK)
    assert [type(event) for event in recorder.seen] == [ConnectionDown]
    store.failed(later, RequestRefused("no right to SELECT"), LOOK)
    store.succeeded(later, SETTLE)
    assert store.down
    store.succeeded(later, CLAIM)
    assert [type(event) for event in recorder.seen] == [ConnectionDown, ConnectionUp]


def test_a_refused_request_that_is_not_needed_any_more_ends_its_outage() -> None:
    recorder = Recorder()
    store = Availability("database", recorder.events)
    store.failed(float("-inf"), RequestRefused("no right to UPDATE"), RENEW)
    store.unneeded(RENEW)
    assert [type(event) for event in recorder.seen] == [ConnectionDown, ConnectionUp]


def test_a_backoff_grows_to_its_limit_and_starts_over() -> None:
    backoff = ReconnectBackoff(0.1, 5)
    delays = [backoff.next() for _ in range(10)]
    assert 0.05 <= delays[0] <= 0.1
    assert all(2.5 <= delay <= 5 for delay in delays[6:])
    backoff.reset()
    assert backoff.next() <= 0.1
