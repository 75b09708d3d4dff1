"""Jobs that may have killed their process, each beside no other of its kind."""

from __future__ import annotations

import pytest

from outbox import Job, clock
from outbox.runtime.execution.attempt import Attempt
from outbox.runtime.execution.isolation import Isolation
from tests.unit.runtime.memory import claim_of


class Quick(Job):
    async def handle(self) -> None: ...


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(clock, "now", lambda: now[0])
    return now


def suspects(count: int) -> list[Attempt]:
    claims = [claim_of(Quick(), attempt=3, rescued=True) for _ in range(count)]
    return [Attempt(claim, "memory", lambda attempt: None) for claim in claims]


def test_one_suspect_runs_and_the_next_when_it_has_left() -> None:
    isolation = Isolation()
    first, second, third = suspects(3)
    assert isolation.admit([first, second]) == ([], first, [second])
    assert isolation.admit([third]) == ([], None, [third])
    isolation.leave(second)
    assert isolation.admit([second]) == ([], None, [second])
    isolation.leave(first)
    assert isolation.admit([second, third]) == ([], second, [third])


@pytest.mark.parametrize(("attempt", "rescued"), [(2, True), (3, False)])
def test_others_run_as_usual(attempt: int, rescued: bool) -> None:
    [suspect] = suspects(1)
    usual = Attempt(claim_of(Quick(), attempt=attempt, rescued=rescued), "memory", lambda attempt: None)
    assert Isolation().admit([suspect, usual]) == ([usual], suspect, [])


def test_the_others_come_back_one_after_another(now: list[float]) -> None:
    """Together, all of them would be claimed and put back whenever one of them can run."""
    isolation = Isolation()
    isolation.admit(suspects(4))
    assert isolation.delays(3) == pytest.approx([0.1, 0.125, 0.15])
    now[0] += 10
    assert isolation.delays(2) == pytest.approx([10, 10.025])
    now[0] += 1_000
    assert isolation.delays(2) == [30, 30]
