"""Events as lines."""

from __future__ import annotations

import inspect
import io
import json
import logging
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from outbox import events as all_events
from outbox.events import (
    ConnectionDown,
    Event,
    Events,
    JobSettled,
    JobStarted,
    LoopBlocked,
    ProcessEnded,
    WorkerStarted,
)
from outbox.runtime.reporting.event_text import Level, describe
from outbox.runtime.reporting.logs import EventLog
from outbox.settlement import Failure, Outcome

JOB = (UUID("0190a1b2-0000-7000-8000-0123456789ab"), "app.SendReceipt", "mail", "database", 2)
FAILURE = Failure("builtins.ValueError", "first line\nsecond \x1b[31mline", "Traceback …")
STARTED = WorkerStarted("host:7", 7, ("database: mysql+asyncmy://app:***@db/shop (MySQL 9.1)",), ("mail", "x"), 20, 30)
SAMPLES: dict[str, Any] = {
    "job_id": JOB[0], "name": JOB[1], "queue": JOB[2], "connection": JOB[3], "attempt": JOB[4],
    "outcome": Outcome.RETRIED, "seconds": 0.5, "delay": 5.0, "failure": FAILURE, "reason": "why", "rescued": True,
    "running": ("app.SendReceipt x",), "stack": 'File "job.py", line 3\n  sleep()', "worker": "host:7", "pid": 7,
    "connections": ("database: sqlite",), "queues": ("mail",), "concurrency": 20, "lease": 30.0, "error": "gone",
    "processed": 3, "failed": 1, "handed_back": 1, "exit_code": 13, "index": 1, "restart_in": 0.5,
    "job_ids": (JOB[0],), "paths": ("a.py",), "wakeups": ("binlog",), "source": "binlog",
    "signal": "USR1", "what": "changed the working directory", "action": "it was restored",
    "count": 7, "in_session": True, "key": "customer:7", "schedule": "digest:7",
    "batch_id": JOB[0], "chain_id": JOB[0], "total": 500, "state": "completed", "number": 2, "jobs": 3,
    "url": "http://127.0.0.1:8081", "change": "paused", "waited": 0.25,
    "suspects": ("app.SendReceipt x",), "tick": datetime(2026, 3, 2, 7, tzinfo=UTC),
    "kind": "queue", "until": datetime(2026, 3, 2, 8, tzinfo=UTC), "by_itself": True, "job": JOB[1],
    "operation_id": JOB[0], "verb": "cancel", "by": "kim@host", "done": 2, "refused": 1, "stopped": True,
}  # fmt: skip


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def every_event() -> list[Event]:
    kinds = [kind for _, kind in inspect.getmembers(all_events, inspect.isclass) if issubclass(kind, Event)]
    made = []
    for kind in kinds:
        values = {name: SAMPLES[name] for name in kind.__dataclass_fields__}
        if kind.__name__ == "WorkerStopping":
            values |= {"running": 3, "error": FAILURE}
        made.append(kind(**values))
    return made


@pytest.fixture(autouse=True)
def loggers() -> Iterator[None]:
    yield
    logger = logging.getLogger("outbox")
    logger.handlers, logger.propagate = [], True


def written(*events: Event, as_json: bool = False, stream: io.StringIO | None = None) -> list[str]:
    stream = stream or io.StringIO()
    hub = Events()
    log = EventLog(hub, stream, as_json=as_json)
    for event in events:
        hub.emit(event)
    assert log.flush(60)
    return stream.getvalue().splitlines()


@pytest.mark.parametrize("event", every_event(), ids=lambda event: type(event).__name__)
def test_every_event_has_a_line_for_people_and_one_for_machines(event: Event) -> None:
    level, word, text = describe(event)
    assert isinstance(level, Level)
    assert word
    assert "\n" not in text
    assert "\x1b" not in text
    if type(event) not in (Event, all_events.JobEvent):
        assert word != "event", f"{type(event).__name__} has no wording"
    (line,) = written(event, as_json=True)
    values = json.loads(line)
    assert set(values) == {"time", "level", "event", *type(event).__dataclass_fields__}


def test_a_machine_gets_all_fields() -> None:
    (line,) = written(JobSettled(*JOB, Outcome.RETRIED, 0.5, 5.0, FAILURE), as_json=True)
    values = json.loads(line)
    assert values["time"].endswith("Z")
    del values["time"]
    assert values == {
        "level": "warning",
        "event": "job_settled",
        "job_id": "0190a1b2-0000-7000-8000-0123456789ab",
        "name": "app.SendReceipt",
        "queue": "mail",
        "connection": "database",
        "attempt": 2,
        "outcome": "retried",
        "seconds": 0.5,
        "delay": 5.0,
        "failure": {"type": FAILURE.type, "message": FAILURE.message, "traceback": FAILURE.traceback},
    }


def test_people_get_one_line_without_control_characters() -> None:
    (line,) = written(JobSettled(*JOB, Outcome.RETRIED, 0.0123, 5.0, FAILURE))
    _, _, text = line.partition("  ")
    assert text == (
        "retry     app.SendReceipt 0123456789ab attempt 2, 12 ms; again in 5.0 s: "
        "builtins.ValueError: first line second ?[31mline"
    )


def test_a_file_gets_no_line_for_a_start_and_a_terminal_does() -> None:
    assert written(JobStarted(*JOB)) == []
    assert len(written(JobStarted(*JOB), stream=Terminal())) == 1


def test_a_terminal_gets_colours_and_a_banner() -> None:
    banner = written(STARTED, stream=Terminal())
    text = "\n".join(banner)
    assert "\x1b[" in text
    for part in ("host:7", "mail, x (in this order)", "mysql+asyncmy://app:***@db/shop (MySQL 9.1)", "20 jobs", "30 s"):
        assert part in text
    assert len(written(STARTED)) == 1
    assert "\x1b[" not in written(STARTED)[0]


def test_a_terminal_gets_no_colours_where_they_are_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    lines = written(STARTED, JobStarted(*JOB), JobSettled(*JOB, Outcome.RETRIED, 0.5, 5.0, FAILURE), stream=Terminal())
    assert len(lines) == 3
    assert "\x1b" not in "".join(lines)
    monkeypatch.setenv("NO_COLOR", "")
    assert "\x1b[" in "".join(written(STARTED, stream=Terminal()))


def test_a_signal_is_named() -> None:
    assert "SIGKILL" in describe(ProcessEnded(1, 7, -9, 0.5)).text
    assert "exit code 13" in describe(ProcessEnded(1, 7, 13, 0.0)).text


def test_a_blocked_loop_is_shown_with_its_place() -> None:
    stack = 'File "loop.py", line 1, in run\n  run()\nFile "job.py", line 7, in handle\n  time.sleep(5)\n'
    text = describe(LoopBlocked(1.5, ("app.Job x",), stack)).text
    assert 'File "job.py", line 7, in handle time.sleep(5)' in text
    assert "app.Job x" in text


def test_what_outbox_itself_reports_is_among_the_lines() -> None:
    stream = io.StringIO()
    log = EventLog(Events(), stream, as_json=True)
    try:
        raise ValueError("inside")
    except ValueError:
        logging.getLogger("outbox.runtime").exception("it failed on %s", "x")
    assert log.flush(60)
    values = json.loads(stream.getvalue())
    assert (values["event"], values["level"], values["message"]) == ("log", "error", "it failed on x")
    assert "ValueError: inside" in values["traceback"]


def test_a_closed_pipe_stops_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    assert written(ConnectionDown("database", "gone"), stream=Broken()) == []
    assert capsys.readouterr().err == ""


def test_only_those_who_want_an_event_get_it() -> None:
    hub, heard = Events(), []
    hub.listen(heard.append, JobSettled)
    assert hub.wants(JobSettled)
    assert not hub.wants(JobStarted)
    hub.emit(JobStarted(*JOB))
    hub.emit(settled := JobSettled(*JOB, Outcome.COMPLETED, 0.1))
    assert heard == [settled]


def test_an_interpreter_that_starts_no_more_threads_still_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    hub, stream = Events(), io.StringIO()
    EventLog(hub, stream, as_json=False)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        hub.emit(all_events.WorkerStopped("host:7", 3, 1, 0))
        assert "host:7" in stream.getvalue()
