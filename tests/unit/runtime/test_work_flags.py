"""Flags, profiles, environment: which of them reaches the worker."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from outbox import work
from outbox.runtime.process.supervisor import worker_command
from outbox.runtime.process.worker_process import Supervised
from outbox.settings import WorkerOptions

FLAGS: list[tuple[list[str], str, Any]] = [
    (["--connection", "database,second"], "connection", ("database", "second")),
    (["--queue", "high, default"], "queue", ("high", "default")),
    (["--concurrency", "7"], "concurrency", 7),
    (["--processes", "1"], "processes", 1),
    (["--max-jobs", "5"], "max_jobs", 5),
    (["--max-time", "1.5"], "max_time", 1.5),
    (["--max-tries", "9"], "max_tries", 9),
    (["--timeout", "12"], "timeout", 12),
    (["--backoff", "1,5,30"], "backoff", (1, 5, 30)),
    (["--sleep", "0.2"], "sleep", 0.2),
    (["--wake", "poll"], "wake", "poll"),
    (["--rest", "0.1"], "rest", 0.1),
    (["--memory", "512"], "memory", 512),
    (["--lease", "15"], "lease", 15),
    (["--grace", "3"], "grace", 3),
    (["--once"], "once", True),
    (["--stop-when-empty"], "stop_when_empty", True),
    (["--name", "mailer"], "name", "mailer"),
    (["--json"], "json_logs", True),
    (["--health-port", "8081"], "health_port", 8081),
    (["--health-host", "0.0.0.0"], "health_host", "0.0.0.0"),
]


class Started:
    """What `work` would have run."""

    options: WorkerOptions
    supervised: bool = False
    arguments: Sequence[str] = ()


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Started:
    seen = Started()

    class NoSignals:
        """The process of the tests keeps its own handlers."""

        def __init__(self, start_code: int) -> None: ...

        def install(self) -> None: ...

    def run_worker(options: WorkerOptions, *_: object) -> int:
        seen.options = options
        return 0

    def supervise(options: WorkerOptions, events: object, signals: object, arguments: Sequence[str]) -> int:
        seen.options, seen.supervised, seen.arguments = options, True, arguments
        return 0

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(work, "Signals", NoSignals)
    monkeypatch.setattr(work, "run_here", run_worker)
    monkeypatch.setattr(work, "run_supervised", supervise)
    monkeypatch.setattr(work, "leave", sys.exit)
    return seen


def run(*arguments: str) -> Result:
    return CliRunner().invoke(work.cli, list(arguments))


@pytest.mark.parametrize(("arguments", "option", "value"), FLAGS, ids=lambda value: str(value))
def test_a_flag_reaches_the_worker(started: Started, arguments: list[str], option: str, value: Any) -> None:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    assert getattr(started.options, option) == value
    assert not started.supervised


@pytest.mark.parametrize("option", ["connection", "queue"])
def test_what_is_named_twice_counts_once_where_it_was_named_first(started: Started, option: str) -> None:
    assert run(f"--{option}", "b,a,b").exit_code == 0
    assert getattr(started.options, option) == ("b", "a")


def test_every_option_of_a_worker_has_a_flag() -> None:
    flags = {parameter.name for parameter in work.cli.params}
    assert set(WorkerOptions.model_fields) == flags - {"profile"}


def test_what_is_not_given_is_left_to_the_environment(started: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTBOX_CONCURRENCY", "33")
    monkeypatch.setenv("OUTBOX_ONCE", "true")
    monkeypatch.setenv("OUTBOX_QUEUE", "a,b")
    run("--queue", "c")
    assert (started.options.concurrency, started.options.once, started.options.queue) == (33, True, ("c",))


def test_pyproject_is_the_last_layer(started: Started, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.outbox]\nconcurrency = 11\nlease = 12\n")
    monkeypatch.setenv("OUTBOX_LEASE", "13")
    run()
    assert (started.options.concurrency, started.options.lease) == (11, 13)


@pytest.mark.parametrize("reference", ["profiles_here", "profiles_here:worker", "profiles_here:other"])
def test_a_profile_goes_before_the_environment_and_after_flags(
    started: Started, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: str
) -> None:
    monkeypatch.delitem(sys.modules, "profiles_here", raising=False)
    (tmp_path / "profiles_here.py").write_text(
        "from outbox import WorkerOptions\n"
        "worker = WorkerOptions(queue='mail', concurrency=5)\n"
        "other = WorkerOptions(queue='mail', concurrency=6)\n"
    )
    monkeypatch.setenv("OUTBOX_CONCURRENCY", "33")
    monkeypatch.setenv("OUTBOX_LEASE", "9")
    result = run(reference, "--sleep", "2")
    assert result.exit_code == 0, result.output
    options = started.options
    assert (options.queue, options.sleep, options.lease) == (("mail",), 2, 9)
    assert options.concurrency == (6 if reference.endswith("other") else 5)
    run(reference, "--concurrency", "8")
    assert started.options.concurrency == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.at.all"], "cannot be imported: ModuleNotFoundError"),
        (["os:nothing"], "no attribute 'nothing'"),
        (["os:path"], "not outbox.WorkerOptions"),
        (["--queue", "Not A Queue"], "queue: a queue's name is"),
        (["--concurrency", "0"], "concurrency"),
        (["--lease", "0.1"], "lease"),
        (["--backoff", "soon"], "backoff"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_with_exit_code_2(
    started: Started, arguments: list[str], message: str
) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert len(result.output.splitlines()) == 1
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("raise SystemExit(0)", "cannot be imported: it calls sys.exit(0)"),
        ("import sys; sys.exit()", "cannot be imported: it calls sys.exit()"),
        ("import os; os.nothing", "cannot be imported: AttributeError"),
    ],
)
def test_a_profile_that_ends_when_imported_is_wrong(
    started: Started, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, message: str
) -> None:
    monkeypatch.delitem(sys.modules, "ending_here", raising=False)
    (tmp_path / "ending_here.py").write_text(f"{line}\n")
    result = run("ending_here")
    assert (result.exit_code, message in result.output) == (2, True), result.output


@pytest.mark.parametrize("arguments", [["--processes", "2"], ["--reload"]])
def test_several_processes_and_reload_need_a_supervisor(
    started: Started, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["outbox.work", *arguments])
    run(*arguments)
    assert started.supervised
    assert started.arguments == arguments
    assert worker_command(arguments) == [sys.executable, "-m", "outbox.work", *arguments]


def test_a_supervised_process_is_a_worker_and_its_jobs_processes_are_not_supervised(
    started: Started, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with (tmp_path / "pipe").open("w") as pipe:
        monkeypatch.setenv("OUTBOX_SUPERVISED", f"2:{pipe.fileno()}")
        run("--processes", "2")
    assert not started.supervised
    assert Supervised.take() is None


def test_help_names_every_flag_and_the_exit_codes() -> None:
    output = run("--help").output
    for arguments, _, _ in FLAGS:
        assert arguments[0] in output
    for code in ("0 ", "1 ", "2 ", "12 ", "14 ", "15 ", "130 "):
        assert f"\n    {code}" in output
