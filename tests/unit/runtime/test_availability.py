"""An outage is said once, whoever notices it."""

from __future__ import annotations

import pytest

from outbox import clock
from outbox.errors import BackendUnavailable, RequestRefused
from outbox.events import ConnectionDown, ConnectionUp
from outbox.runtime.availability import CLAIM, HEARTBEAT, LOOK, RENEW, SETTLE, Availability, ReconnectBackoff
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
    store.succeeded(later, CLAIM)
    assert store.down
    store.succeeded(later, LOOK)
    assert [type(event) for event in recorder.seen] == [ConnectionDown, ConnectionUp]


@pytest.mark.parametrize("error", [GONE, RequestRefused("no room left")])
def test_an_outage_is_over_when_all_that_failed_in_it_is_carried_out(error: BackendUnavailable) -> None:
    """A file or a server that can be read, but not written, answers one request and not the next."""
    recorder = Recorder()
    store = Availability("database", recorder.events)
    later = float("inf")
    for _ in range(5):
        for request in (CLAIM, SETTLE, HEARTBEAT):
            store.failed(later, error, request)
        store.succeeded(later, LOOK)
        store.succeeded(later, RENEW)
    for request in (CLAIM, HEARTBEAT):
        store.succeeded(later, request)
        assert store.down
    store.succeeded(later, SETTLE)
    assert [type(event) for event in recorder.seen] == [ConnectionDown, ConnectionUp]


def test_a_claim_stands_for_a_look_that_failed_with_it_or_long_ago() -> None:
    """In a backlog, no look follows. Elsewhere one does, and may be refused again."""
    recorder = Recorder()
    store = Availability("database", recorder.events)
    begun = clock.now() + 1
    for request in (LOOK, CLAIM):
        store.failed(begun, GONE, request)
    store.succeeded(begun + 1, CLAIM)
    assert [type(event) for event in recorder.seen] == [ConnectionDown, ConnectionUp]
    store.failed(begun + 2, GONE, LOOK)
    for later in range(9):
        store.succeeded(begun + 3 + later, CLAIM)
    assert store.down
    store.succeeded(begun + 12, CLAIM)
    assert not store.down


def test_an_outage_ends_without_a_request_that_is_not_needed_any_more() -> None:
    """But not with it: that nothing is to be renewed any more does not say that the store is back."""
    recorder = Recorder()
    store = Availability("database", recorder.events)
    later = float("inf")
    store.failed(later, RequestRefused("no right to UPDATE"), RENEW)
    store.failed(later, GONE, SETTLE)
    store.unneeded(RENEW)
    store.unneeded(SETTLE)
    assert store.down
    store.succeeded(later, LOOK)
    assert [type(event) for event in recorder.seen] == [ConnectionDown, ConnectionUp]


def test_a_backoff_grows_to_its_limit_and_starts_over() -> None:
    backoff = ReconnectBackoff(0.1, 5)
    delays = [backoff.next() for _ in range(10)]
    assert 0.05 <= delays[0] <= 0.1
    assert all(2.5 <= delay <= 5 for delay in delays[6:])
    backoff.reset()
    assert backoff.next() <= 0.1
