"""The demonstration can fail: its verdict on what is lost, phantom, or repeated without a reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.demo.ledger import Ledger
from app.demo.verdict import judge
from app.demo.witness import Witness
from app.jobs import ProcessReading
from app.runlog import run
from app.settings import settings
from outbox import JobId
from tests.app.rows import running

KILLED = 111
A, B = JobId(int=1), JobId(int=2)


class Log:
    """Writes a run log as the workers do."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.witness = Witness(directory)

    def write(self, process: int, *events: tuple[str, JobId], at: float = 1.0) -> None:
        with (self.directory / f"{process}.log").open("a", encoding="ascii") as file:
            file.writelines(f"{at} {event} ProcessReading {job_id} 1\n" for event, job_id in events)
        self.witness.look()


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


@pytest.fixture
def ledger() -> Ledger:
    ledger = Ledger()
    ledger.commit([(A, "effect of A")])
    return ledger


def test_all_is_well(log: Log, ledger: Ledger) -> None:
    log.write(1, ("began", A), ("ended", A))

    verdict = judge(ledger, log.witness, {"effect of A"}, KILLED)

    assert (verdict.lost, verdict.phantom, verdict.repeated, verdict.unexplained) == (set(), set(), 0, 0)


def test_a_committed_job_that_never_ran_is_lost(log: Log, ledger: Ledger) -> None:
    assert judge(ledger, log.witness, set(), KILLED).lost == {"effect of A"}


def test_a_committed_job_that_was_cut_off_for_good_is_lost(log: Log, ledger: Ledger) -> None:
    log.write(KILLED, ("began", A))

    assert judge(ledger, log.witness, {"effect of A"}, KILLED).lost == {"effect of A"}


def test_a_job_that_ended_without_its_effect_is_lost(log: Log, ledger: Ledger) -> None:
    log.write(1, ("began", A), ("ended", A))

    assert judge(ledger, log.witness, set(), KILLED).lost == {"effect of A"}


def test_a_run_of_a_job_that_was_rolled_back_is_phantom(log: Log, ledger: Ledger) -> None:
    log.write(1, ("began", A), ("ended", A), ("began", B), ("ended", B))

    assert judge(ledger, log.witness, {"effect of A"}, KILLED).phantom == {str(B)}


def test_an_effect_that_nobody_committed_is_phantom(log: Log, ledger: Ledger) -> None:
    log.write(1, ("began", A), ("ended", A))

    assert judge(ledger, log.witness, {"effect of A", "effect of B"}, KILLED).phantom == {"effect of B"}


@pytest.mark.parametrize("killed_events", [[("began", A)], [("began", A), ("ended", A)]])
def test_a_run_that_the_kill_cut_off_may_be_repeated(
    log: Log, ledger: Ledger, killed_events: list[tuple[str, JobId]]
) -> None:
    log.write(KILLED, *killed_events)
    log.write(2, ("began", A), ("ended", A))

    verdict = judge(ledger, log.witness, {"effect of A"}, KILLED)

    assert (verdict.repeated, verdict.reasons, verdict.unexplained) == (1, {"killed": 1}, 0)


def test_a_run_that_raised_may_be_repeated(log: Log, ledger: Ledger) -> None:
    log.write(1, ("began", A), ("raised:SMTPDataError", A), ("began", A), ("ended", A))

    verdict = judge(ledger, log.witness, {"effect of A"}, KILLED)

    assert (verdict.reasons, verdict.unexplained) == ({"SMTPDataError": 1}, 0)


def test_a_run_that_raised_is_the_reason_even_if_the_killed_process_did_the_rest(log: Log, ledger: Ledger) -> None:
    log.write(1, ("began", A), ("raised:SMTPDataError", A))
    log.write(KILLED, ("began", A), ("ended", A))

    assert judge(ledger, log.witness, {"effect of A"}, KILLED).reasons == {"SMTPDataError": 1}


def test_a_run_that_ended_well_may_not_be_repeated(log: Log, ledger: Ledger) -> None:
    log.write(1, ("began", A), ("ended", A))
    log.write(2, ("began", A), ("ended", A))

    assert judge(ledger, log.witness, {"effect of A"}, KILLED).unexplained == 1


@pytest.mark.parametrize(("began", "out_of_order"), [(2.0, set()), (1.5, {str(B)})])
def test_a_reading_begins_when_the_one_before_it_has_ended(
    log: Log, ledger: Ledger, began: float, out_of_order: set[str]
) -> None:
    """Whoever ran it: here its first run was killed."""
    ledger.commit([(B, "effect of B")])
    ledger.keep_order([("roof", A), ("roof", B), ("cellar", JobId(int=3))])
    log.write(KILLED, ("began", A), at=0.5)
    log.write(1, ("began", A), at=1.0)
    log.write(1, ("ended", A), at=1.8)
    log.write(2, ("began", B), ("ended", B), at=began)

    verdict = judge(ledger, log.witness, {"effect of A", "effect of B"}, KILLED)

    assert (verdict.lost, verdict.out_of_order) == (set(), out_of_order)


def test_the_witness_leaves_half_a_line_for_the_next_look(log: Log) -> None:
    path = log.directory / "1.log"
    path.write_text(f"1.0 began ProcessReading {A} 1\n2.0 end")
    log.witness.look()
    assert log.witness.ended == set()

    with path.open("a") as file:
        file.write(f"ed ProcessReading {A} 1\n")
    log.witness.look()
    assert log.witness.ended == {str(A)}


def test_the_run_log_tells_how_each_run_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APP_RUN_LOG", str(tmp_path))
    settings.cache_clear()
    job = running(ProcessReading(reading_id=1))
    with run(job):
        pass
    with pytest.raises(TimeoutError), run(job):
        raise TimeoutError
    settings.cache_clear()

    witness = Witness(tmp_path)
    witness.look()

    (runs,) = witness.runs.values()
    assert [run.outcome for run in runs] == ["ended", "raised:TimeoutError"]


def test_the_run_log_is_silent_unless_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings.cache_clear()
    with run(ProcessReading(reading_id=1)):
        pass

    assert list(tmp_path.iterdir()) == []
