"""The commands as an operator has them: on a terminal, with keys and questions, and as processes with exit codes."""

from __future__ import annotations

import asyncio
import os
import pty
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from outbox.drivers.database import DatabaseDriver
from outbox.drivers.values import WorkerStatus
from tests.conformance.jobs import envelope, envelopes
from tests.servers.process import free_port
from tests.support.commands import fail, run, run_process
from tests.support.python_process import ROOT, ForkedProcess, start_on_terminal

ALTERNATE, NORMAL = b"\x1b[?1049h", b"\x1b[?1049l"


@pytest.fixture
async def driver(migrated_url: str) -> AsyncIterator[DatabaseDriver]:
    driver = DatabaseDriver(migrated_url)
    yield driver
    await driver.close()


class Terminal:
    """A command on a pseudo terminal."""

    def __init__(self, process: ForkedProcess, master: int) -> None:
        self.process = process
        self.output = b""
        self._master = master
        self._more = asyncio.Event()
        asyncio.get_running_loop().add_reader(master, self._read)

    @classmethod
    async def start(cls, directory: Path, url: str, *arguments: str) -> Terminal:
        master, slave = pty.openpty()
        process = await start_on_terminal(
            *("-m", "outbox", *arguments),
            cwd=directory,
            env=os.environ | {"PYTHONPATH": str(ROOT), "DATABASE_URL": url, "TERM": "xterm", "COLUMNS": "120"},
            terminal=slave,
        )
        os.close(slave)
        return cls(process, master)

    def _read(self) -> None:
        try:
            read = os.read(self._master, 65_536)
        except OSError:  # the other end is closed
            read = b""
        if not read:
            asyncio.get_running_loop().remove_reader(self._master)
        self.output += read
        self._more.set()

    async def shows(self, text: bytes, times: int = 1) -> None:
        async with asyncio.timeout(90):
            while self.output.count(text) < times:
                self._more.clear()
                await self._more.wait()

    def type(self, keys: bytes) -> None:
        os.write(self._master, keys)

    async def end(self) -> int:
        try:
            async with asyncio.timeout(90):
                return await self.process.wait()
        finally:
            if self.process.returncode is None:
                self.process.kill()
                await self.process.wait()
            self._read()
            asyncio.get_running_loop().remove_reader(self._master)
            os.close(self._master)


@pytest.mark.parametrize("ending", ["q", "\x03", "SIGINT", "SIGTERM"])
async def test_monitor_is_drawn_until_it_is_ended_and_leaves_the_terminal_as_it_was(
    driver: DatabaseDriver, migrated_url: str, tmp_path: Path, ending: str
) -> None:
    await driver.jobs.insert(envelopes(7, queue="mail"))
    terminal = await Terminal.start(tmp_path, migrated_url, "monitor", "--interval", "0.1")
    await terminal.shows(b"jobs/s", times=2)
    if ending.startswith("SIG"):
        terminal.process.send_signal(getattr(signal, ending))
    else:
        terminal.type(ending.encode())
    assert await terminal.end() == 0
    assert terminal.output.count(ALTERNATE) == terminal.output.count(NORMAL) == 1
    last = terminal.output.split(NORMAL)[1].decode()
    assert "mail" in last, "the last view does not stay"
    assert "Traceback" not in last


async def test_monitor_follows_what_changes(driver: DatabaseDriver, migrated_url: str, tmp_path: Path) -> None:
    """Throughput is what the workers' counts have grown by."""
    worker = WorkerStatus(b"w" * 16, "w1", "web1", 1, "mail", 20, 3, 1_000, 0)
    await driver.workers.heartbeat(worker)
    terminal = await Terminal.start(tmp_path, migrated_url, "monitor", "--interval", "0.1", "--max", "4")
    await terminal.shows(b"0.0 jobs/s")
    await driver.workers.heartbeat(WorkerStatus(b"w" * 16, "w1", "web1", 1, "mail", 20, 3, 501_000, 0))
    await terminal.shows(b"501,000")
    await terminal.shows(b"jobs/s", times=terminal.output.count(b"jobs/s") + 1)
    latest = terminal.output.decode().rpartition(" jobs/s")[0].split()[-1]
    assert float(latest.replace(",", "")) > 1_000
    await driver.jobs.insert(envelopes(5, queue="mail"))
    await terminal.shows(b"long")
    terminal.type(b"q")
    assert await terminal.end() == 1


@pytest.mark.parametrize(("answer", "code", "left"), [(b"y\n", 0, 0), (b"n\n", 1, 1), (b"\n", 1, 1)])
async def test_a_question_is_asked_before_jobs_are_removed(
    driver: DatabaseDriver, migrated_url: str, tmp_path: Path, answer: bytes, code: int, left: int
) -> None:
    await fail(driver, envelope(queue="mail"))
    terminal = await Terminal.start(tmp_path, migrated_url, "flush", "--queue", "mail")
    await terminal.shows(b"for good? [y/N]")
    terminal.type(answer)
    assert await terminal.end() == code
    assert len(await driver.failed.page()) == left


async def test_an_interrupt_at_a_question_works_at_once(
    driver: DatabaseDriver, migrated_url: str, tmp_path: Path
) -> None:
    await fail(driver, envelope())
    terminal = await Terminal.start(tmp_path, migrated_url, "flush")
    await terminal.shows(b"[y/N]")
    terminal.type(b"\x03")
    assert await terminal.end() == 1
    assert len(await driver.failed.page()) == 1


async def test_there_are_colours_on_a_terminal_only(driver: DatabaseDriver, migrated_url: str, tmp_path: Path) -> None:
    await driver.jobs.insert([envelope()])
    terminal = await Terminal.start(tmp_path, migrated_url, "stats")
    assert await terminal.end() == 0
    assert b"\x1b[1m" in terminal.output
    assert "\x1b" not in (await run_process(tmp_path, "stats", DATABASE_URL=migrated_url)).out


# --- exit codes


async def test_an_unreachable_database_is_one_line(tmp_path: Path) -> None:
    url = f"mysql+asyncmy://root:secret@127.0.0.1:{free_port()}/shop"
    ran = await run_process(tmp_path, "stats", DATABASE_URL=url)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.count("\n") == 1
    assert ran.err.startswith("outbox: ")
    assert "does not answer" in ran.err
    assert "secret" not in ran.err


@pytest.mark.parametrize(
    ("arguments", "environment", "said"),
    [
        (["stats"], {"DATABASE_URL": "postgresql://localhost/shop"}, "postgresql"),
        (["stats"], {"OUTBOX_PAYLOAD_LIMIT": "much"}, "much"),
        (["stats", "--connection", "none"], {}, "none"),
        (["stats"], {"DATABASE_URL": "sqlite+aiosqlite:///new.db"}, "alembic upgrade head"),
        (["nothing"], {}, "nothing"),
    ],
)
async def test_what_is_configured_wrong_exits_2(
    tmp_path: Path, arguments: list[str], environment: dict[str, str], said: str
) -> None:
    ran = await run_process(tmp_path, *arguments, **environment)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert "Traceback" not in ran.err


async def test_a_payload_is_printed_whatever_the_encoding(
    driver: DatabaseDriver, migrated_url: str, tmp_path: Path
) -> None:
    await fail(driver, envelope(payload='{"to": "\N{PILE OF POO}"}'))
    ran = await run_process(tmp_path, "failed", DATABASE_URL=migrated_url, PYTHONIOENCODING="ascii")
    assert (ran.code, ran.err) == (0, "")
    assert r"\U0001f4a9" in ran.out


async def test_the_commands_are_those_of_the_design(tmp_path: Path) -> None:
    ran = await run_process(tmp_path, "--help")
    assert ran.code == 0
    commands = {line.split()[0] for line in ran.out.partition("Commands:\n")[2].splitlines()}
    failed, live = (
        {"failed", "retry", "forget", "flush", "prune"},
        {"clear", "pause", "resume", "cancel", "reschedule", "change", "jobs", "show"},
    )
    policies = {"unblock", "schedule", "limits", "batches"}
    without_store = {"ddl", "web"}
    assert commands == failed | live | without_store | policies | {
        "stats", "monitor", "workers", "check", "dispatch", "rekey", "autoscale", "bulk", "operations", "audit",
    }  # fmt: skip
    groups = {"schedule", "limits", "batches", "operations", "bulk"}
    for command in commands - without_store - groups:
        shown = await run("", command, "--help")
        assert "--json" in shown.out
        assert "--connection" in shown.out


@pytest.mark.parametrize("group", ["limits", "batches", "operations"])
async def test_a_group_without_a_command_takes_the_options_of_its_list(
    migrated_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: str
) -> None:
    monkeypatch.chdir(tmp_path)  # away from this project's own settings
    ran = await run(migrated_url, group, "--json", "--connection", "database")
    assert (ran.code, ran.document) == (0, {"connection": "database", group: []})
    assert ran == await run(migrated_url, group, "list", "--json")
    assert (await run(migrated_url, group)).code == 0
    assert "--connection" not in (await run(migrated_url, group, "--help")).out
