"""The end of an interpreter waits for its relay: for as long as that is worth it, and never for long."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator

import pytest

from outbox.errors import BackendUnavailable, ConfigurationError
from outbox.relay import thread as module
from outbox.relay.thread import RelayThread, RelayThreads

AT_ONCE, AT_MOST = 30.0, 90.0
"""Seconds: far more than a busy machine needs for nothing, and what the end may wait for in these tests."""


class Stores:
    """Both of them, closed without an error."""

    policies = None

    async def close(self) -> None: ...


class Moves:
    """In place of `Relay`: how often rows were moved, and what comes of it."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.continue_from = threading.Event()
        self.continue_from.set()
        self.error: Exception | None = None
        self.ended = 0

    def __call__(self, *_: object) -> Moves:
        return self

    async def move(self) -> int:
        """Blocks the loop of the relay, which has nothing else to do."""
        self.begun.release()
        assert self.continue_from.wait(2 * AT_MOST)
        self.ended += 1
        if self.error is not None:
            raise self.error
        return 0


@pytest.fixture
def moves(monkeypatch: pytest.MonkeyPatch) -> Moves:
    moves = Moves()
    monkeypatch.setattr(module, "Relay", moves)
    monkeypatch.setattr(module, "open_for_relay", lambda _, __: Stores())
    return moves


@pytest.fixture
def relays(moves: Moves) -> Iterator[RelayThreads]:
    relays = RelayThreads()
    assert relays.seconds_left == module.FLUSH_SECONDS
    relays.seconds_left = AT_MOST
    yield relays
    moves.continue_from.set()
    relays.stop()


def wake(relays: RelayThreads, connection: str = "redis") -> None:
    relays.wake(connection, lambda _: None)


def flush(relays: RelayThreads) -> float:
    """How many seconds it took."""
    began = time.monotonic()
    relays.flush_at_exit()
    return time.monotonic() - began


def later(call: threading.Event) -> None:
    threading.Timer(0.1, call.set).start()


def test_the_end_waits_until_what_was_committed_has_been_moved_on(relays: RelayThreads, moves: Moves) -> None:
    moves.continue_from.clear()
    wake(relays)
    later(moves.continue_from)
    relays.flush_at_exit()
    assert moves.ended == 1


def test_and_for_what_was_committed_meanwhile(relays: RelayThreads, moves: Moves) -> None:
    moves.continue_from.clear()
    wake(relays)
    moves.begun.acquire()
    wake(relays)
    later(moves.continue_from)
    relays.flush_at_exit()
    assert moves.ended == 2


def test_it_does_not_wait_for_long(relays: RelayThreads, moves: Moves) -> None:
    relays.seconds_left = 0.2
    moves.continue_from.clear()
    wake(relays)
    wake(relays, "another")
    assert 0.2 <= flush(relays) < AT_ONCE
    relays.seconds_left = 0.0
    assert flush(relays) < AT_ONCE
    assert moves.ended == 0


def test_its_seconds_are_for_all_that_it_waits_for(
    relays: RelayThreads, moves: Moves, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1_000.0]
    monkeypatch.setattr("outbox.clock.now", lambda: now[0])

    def wait_seven_seconds(thread: RelayThread, seconds: float) -> None:
        waits.append(seconds)
        now[0] += 7

    waits: list[float] = []
    monkeypatch.setattr(RelayThread, "wait", wait_seven_seconds)
    wake(relays)
    wake(relays, "another")
    relays.flush_at_exit()
    relays.flush_at_exit()
    assert waits == [AT_MOST, AT_MOST - 7, AT_MOST - 14, AT_MOST - 21]
    assert relays.seconds_left == AT_MOST - 28


def test_where_nothing_is_left_to_move_it_does_not_wait(relays: RelayThreads, moves: Moves) -> None:
    assert flush(relays) < AT_ONCE
    wake(relays)
    relays.flush_at_exit()
    assert moves.ended == 1
    assert flush(relays) < AT_ONCE


def test_it_does_not_wait_for_a_store_that_did_not_answer_before(
    relays: RelayThreads, moves: Moves, caplog: pytest.LogCaptureFixture
) -> None:
    moves.error = BackendUnavailable("down")
    wake(relays)
    assert flush(relays) < AT_ONCE
    assert [record.getMessage() for record in caplog.records] == [
        "jobs for redis are left to the workers to move on: down"
    ]
    moves.continue_from.clear()
    wake(relays)
    assert flush(relays) < AT_ONCE


def test_and_does_for_one_that_has_answered_since(relays: RelayThreads, moves: Moves) -> None:
    moves.error = BackendUnavailable("down")
    wake(relays)
    relays.flush_at_exit()
    moves.error = None
    wake(relays)
    while moves.ended < 2 or not relays.threads["redis"].moved:
        time.sleep(0.001)
    moves.continue_from.clear()
    wake(relays)
    later(moves.continue_from)
    relays.flush_at_exit()
    assert moves.ended == 3


def test_it_does_not_wait_for_a_relay_that_cannot_be_opened(
    relays: RelayThreads, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor does the next commit fail because of the one before."""

    def refuse(*_: object) -> None:
        raise ConfigurationError("no package")

    monkeypatch.setattr(module, "open_for_relay", refuse)
    for count in (1, 2):
        wake(relays)
        relays.threads["redis"].wait(20)
        assert len(caplog.records) == count
    assert flush(relays) < AT_ONCE


def test_what_an_ending_interpreter_refuses_is_a_line_in_the_log(
    relays: RelayThreads, moves: Moves, caplog: pytest.LogCaptureFixture
) -> None:
    moves.error = RuntimeError("cannot schedule new futures after shutdown")
    moves.continue_from.clear()
    wake(relays)
    later(moves.continue_from)
    assert flush(relays) < AT_MOST
    [record] = caplog.records
    assert (record.levelno, record.exc_info) == (logging.WARNING, None)


def test_so_is_that_it_starts_no_thread(
    relays: RelayThreads, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        wake(relays)
    assert len(caplog.records) == 1
    assert flush(relays) < AT_ONCE


def test_an_error_of_its_own_is_not_hidden_and_the_next_commit_starts_anew(
    relays: RelayThreads, moves: Moves, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", shown.append)
    moves.error = RuntimeError("a bug")
    moves.continue_from.clear()
    others = set(threading.enumerate())
    wake(relays)
    [thread] = set(threading.enumerate()) - others
    moves.continue_from.set()
    thread.join()
    assert [raised.exc_value for raised in shown] == [moves.error]
    moves.error = None
    wake(relays)
    relays.flush_at_exit()
    assert moves.ended == 2


def test_a_child_waits_for_nothing_of_its_parent(relays: RelayThreads, moves: Moves) -> None:
    moves.continue_from.clear()
    wake(relays)
    [inherited] = relays.threads.values()
    relays.after_fork()
    assert flush(relays) < AT_ONCE
    moves.continue_from.set()
    inherited.stop()
