"""`outbox check`: what it finds in good order, what not, and that it says what to do. Each in a process of its own,
because what is registered in this one is what other tests have defined."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from outbox.drivers.database import DatabaseDriver
from outbox.drivers.database.operations.health import innodb_issues, sqlite_issues
from outbox.drivers.values import WorkerStatus
from outbox.relay.route import relay_queue
from tests.conformance.jobs import envelope, envelopes
from tests.servers.process import free_port
from tests.support.commands import Ran, break_payload, execute, fail, run_process

JOBS = """
from outbox import Job

class SendReceipt(Job):
    name = "tests.Job"
    aliases = ["old.SendReceipt"]
    queue = "mail"

    async def handle(self) -> None:
        pass
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """The directory of an application with jobs."""
    directory = tmp_path / "shop"
    directory.mkdir()
    (directory / "shop_jobs.py").write_text(JOBS)
    return directory


@pytest.fixture
async def driver(migrated_url: str) -> AsyncIterator[DatabaseDriver]:
    driver = DatabaseDriver(migrated_url)
    yield driver
    await driver.close()


def found(ran: Ran, level: str, subject: str | None = None) -> list[str]:
    findings: list[dict[str, str]] = ran.document["findings"]
    return [
        f"{finding['message']} → {finding['advice']}"
        for finding in findings
        if finding["level"] == level and subject in {None, finding["subject"]}
    ]


async def check(shop: Path, url: str, *arguments: str, **environment: str) -> Ran:
    environment = {"DATABASE_URL": url, "OUTBOX_JOBS": "shop_jobs"} | environment
    return await run_process(shop, "check", *arguments, **environment)


async def test_everything_in_order(driver: DatabaseDriver, migrated_url: str, shop: Path) -> None:
    ran = await check(shop, migrated_url, "--json")
    assert (ran.code, ran.err, ran.document["ok"]) == (0, "", True)
    assert ran.document["jobs"] == [
        {
            "name": "tests.Job",
            "aliases": ["old.SendReceipt"],
            "class": "shop_jobs.SendReceipt",
            "queue": "mail",
            "connection": None,
        }
    ]
    [reached] = found(ran, "ok", "database")
    assert any(f"({product} " in reached for product in ("SQLite", "MySQL", "MariaDB"))
    assert any("clock" in fact for fact in found(ran, "info", "database"))
    assert found(ran, "problem") == []
    lines = (await check(shop, migrated_url)).out.splitlines()
    assert lines[0].split()[:2] == ["ok", "settings"]
    assert lines[-1].startswith("0 problems, ")


async def test_no_tables(database_url: str, shop: Path) -> None:
    ran = await check(shop, database_url, "--json")
    assert ran.code == 1
    [problem] = found(ran, "problem", "database")
    assert "alembic upgrade head" in problem


async def test_tables_of_another_version(driver: DatabaseDriver, migrated_url: str, shop: Path) -> None:
    await execute(driver, "ALTER TABLE queue_failed_jobs RENAME COLUMN priority TO elsewhere")
    try:
        ran = await check(shop, migrated_url, "--json")
    finally:  # the next test has this database as well
        await execute(driver, "ALTER TABLE queue_failed_jobs RENAME COLUMN elsewhere TO priority")
    assert ran.code == 1
    [problem] = found(ran, "problem", "database")
    assert "another version" in problem
    assert "alembic upgrade head" in problem


async def test_an_index_is_missing(driver: DatabaseDriver, migrated_url: str, shop: Path, backend: str) -> None:
    on = "" if backend == "sqlite" else " ON queue_jobs"
    await execute(driver, f"DROP INDEX queue_jobs_claim{on}")
    try:
        ran = await check(shop, migrated_url, "--json")
    finally:
        await execute(driver, "CREATE INDEX queue_jobs_claim ON queue_jobs (queue, priority, available_at)")
    assert ran.code == 1
    assert "queue_jobs lacks the index queue_jobs_claim" in found(ran, "problem", "database")[0]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://localhost/shop", "postgresql"),
        ("nonsense", "DATABASE_URL"),
        ("mysql+pymysql://h/shop", "asyncmy"),
    ],
)
async def test_a_wrong_url(shop: Path, url: str, said: str) -> None:
    ran = await check(shop, url, "--json")
    assert ran.code == 1
    assert said in found(ran, "problem", "database")[0]


async def test_an_unreachable_server(shop: Path) -> None:
    ran = await check(shop, f"mysql+asyncmy://root:secret@127.0.0.1:{free_port()}/shop")
    assert ran.code == 1
    [problem] = [line for line in ran.out.splitlines() if line.startswith("problem")]
    assert "does not answer" in problem
    assert "secret" not in ran.out + ran.err


async def test_wrong_settings(shop: Path) -> None:
    ran = await check(shop, "sqlite+aiosqlite:///outbox.db", "--json", OUTBOX_PAYLOAD_LIMIT="much")
    assert (ran.code, ran.document["ok"]) == (1, False)
    assert "PAYLOAD_LIMIT" in found(ran, "problem", "settings")[0].upper()


async def test_settings_with_which_no_worker_starts(shop: Path) -> None:
    url = "sqlite+aiosqlite:///outbox.db"
    ran = await check(shop, url, "--json", OUTBOX_CONCURRENCY="abc")
    assert (ran.code, "concurrency" in found(ran, "problem", "settings")[0]) == (1, True)
    (shop / "pyproject.toml").write_text('[tool.outbox]\nlease = "x"\n')
    ran = await check(shop, url, "--json")
    assert (ran.code, "lease" in found(ran, "problem", "settings")[0]) == (1, True)


async def test_a_variable_that_nothing_reads_is_named_where_another_was_meant(
    shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others may use the prefix."""
    for name in [name for name in os.environ if name.startswith("OUTBOX_TEST_")]:
        monkeypatch.delenv(name)  # where tests are told of servers
    environment = {"OUTBOX_CONCURENCY": "5", "OUTBOX_TEST_REDIS": "no", "OUTBOX_DATABASE_URL": "sqlite://"}
    warnings = found(await check(shop, "sqlite+aiosqlite:///outbox.db", "--json", **environment), "warning", "settings")
    assert warnings == [
        "nothing reads the variable OUTBOX_CONCURENCY → is OUTBOX_CONCURRENCY meant?",
        "nothing reads the variable OUTBOX_DATABASE_URL → is DATABASE_URL meant?",
    ]


async def test_a_module_that_is_not_there_or_breaks(driver: DatabaseDriver, migrated_url: str, shop: Path) -> None:
    (shop / "broken_jobs.py").write_text("raise RuntimeError('no licence')")
    (shop / "script.py").write_text("import sys\n\nsys.exit(0)")
    ran = await check(shop, migrated_url, "--json", OUTBOX_JOBS="shop_jobs,nowhere.jobs,broken_jobs,script")
    assert ran.code == 1
    missing, broken, script = found(ran, "problem", "jobs")
    assert "sys.exit(0)" in script
    assert "nowhere.jobs" in missing
    assert "broken_jobs" in broken
    assert "no licence" in broken
    assert "answers" in found(ran, "ok", "database")[0], "one problem hides the rest"


async def test_every_connection_is_checked_or_the_one_that_was_named(
    driver: DatabaseDriver, migrated_url: str, shop: Path
) -> None:
    (shop / "pyproject.toml").write_text(
        "[tool.outbox.connections.billing]\n"
        f'url = "mysql+asyncmy://root@127.0.0.1:{free_port()}/billing"\n'
        f'[tool.outbox.connections.copy]\nurl = "{migrated_url}"\n'
    )
    ran = await check(shop, migrated_url, "--json")
    assert ran.code == 1
    assert len(found(ran, "problem", "billing")) == 1
    assert len(found(ran, "ok", "copy")) == len(found(ran, "ok", "database")) == 1
    ran = await check(shop, migrated_url, "--connection", "copy", "--json")
    assert ran.code == 0
    assert found(ran, "ok", "database") == []
    assert (await check(shop, migrated_url, "--connection", "none")).code == 1


async def test_what_an_operator_should_look_at(driver: DatabaseDriver, migrated_url: str, shop: Path) -> None:
    [failed] = await fail(driver, envelope())
    await break_payload(driver, failed, "{")
    await driver.jobs.insert([*envelopes(2, queue="mail"), envelope(queue="slow"), envelope(queue="held"), envelope()])
    await execute(driver, "UPDATE queue_jobs SET name = 'jobs.Forgotten' WHERE queue = 'held'")
    await driver.queues.pause("held")
    for number, name in enumerate(["alive", "gone"]):
        await driver.workers.heartbeat(
            WorkerStatus(bytes([number]) * 16, name, "web1", 4242, "default,mail", 20, 0, 0, 0)
        )
    await execute(driver, "UPDATE queue_workers SET seen_at = '2020-01-01 00:00:00.000000' WHERE name = 'gone'")
    ran = await check(shop, migrated_url, "--json")
    assert ran.code == 0, "warnings are no problems"
    warnings = found(ran, "warning", "database")
    for parts in [
        ("1 failed job", "outbox failed"),
        ("the queue held is paused with 1 ready", "outbox resume held"),
        ("no worker drains the queue slow, where 1 job is ready", "--queue slow"),
        ("the worker gone was last heard of", "process 4242 on web1"),
        ("jobs named jobs.Forgotten", "aliases"),
        (str(failed.fence.job_id), "repair"),
    ]:
        assert [warning for warning in warnings if all(part in warning for part in parts)], parts
    assert not [warning for warning in warnings if "queue mail" in warning or "queue default" in warning]
    facts = found(ran, "info", "database")
    assert any("5 ready, the first for " in fact for fact in facts)
    assert any("1 worker alive" in fact for fact in facts)


async def test_jobs_on_their_way_to_redis_and_a_redis_that_cannot_be_reached(
    driver: DatabaseDriver, migrated_url: str, shop: Path
) -> None:
    """No worker can be told to drain their queue: its name is not one for `--queue`."""
    await driver.jobs.insert(envelopes(2, queue=relay_queue("redis")))
    ran = await check(shop, migrated_url, "--json", REDIS_URL=f"redis://127.0.0.1:{free_port()}/0")
    assert ran.code == 1
    assert len(found(ran, "problem", "redis")) == 1, "what is only relayed to is examined as well"
    [warning] = found(ran, "warning", "database")
    assert warning.startswith("2 jobs wait to be moved to redis → ")
    assert "--relay" in warning
    assert "--queue" not in warning


async def test_redis_has_no_tables(redis_url: str, shop: Path) -> None:
    ran = await run_process(shop, "check", "--json", QUEUE_CONNECTION="redis", REDIS_URL=redis_url)
    [reached] = found(ran, "ok", "redis")
    assert reached.startswith(f"{redis_url} (")
    assert "tables" not in reached


async def test_no_jobs_at_all(driver: DatabaseDriver, migrated_url: str, shop: Path) -> None:
    ran = await check(shop, migrated_url, "--json", OUTBOX_JOBS="")
    assert ran.code == 0
    assert "OUTBOX_JOBS" in found(ran, "warning", "jobs")[0]


async def test_a_server_whose_clock_is_wrong_is_no_problem(shop: Path, tmp_path: Path) -> None:
    """The clock of this process is turned, which comes to the same."""
    from outbox.console import health_checks

    class Elsewhere:
        name = "database"

        async def now(self) -> Any:
            return health_checks.datetime.fromtimestamp(time.time() - 3600, health_checks.UTC)

    finding = await health_checks.compare_clocks(Elsewhere())  # type: ignore[arg-type]
    assert finding.level == "info"
    assert "3,600 s behind" in finding.message


IN_ORDER = {
    "innodb_flush_log_at_trx_commit": "1",
    "sync_binlog": "1",
    "log_bin": "ON",
    "binlog_format": "ROW",
    "read_only": "OFF",
    "super_read_only": "OFF",
    "max_allowed_packet": "67108864",
}


@pytest.mark.parametrize(
    ("setting", "value", "serious"),
    [
        ("innodb_flush_log_at_trx_commit", "2", False),
        ("sync_binlog", "0", False),
        ("max_allowed_packet", "4194304", False),
        ("binlog_format", "STATEMENT", True),
        ("read_only", "ON", True),
        ("super_read_only", "ON", True),
    ],
)
def test_settings_of_a_server_that_weaken_the_guarantees(setting: str, value: str, serious: bool) -> None:
    assert list(innodb_issues(IN_ORDER)) == []
    [concern] = innodb_issues(IN_ORDER | {setting: value})
    assert concern.serious is serious
    assert concern.advice
    without_binlog = list(innodb_issues(IN_ORDER | {setting: value, "log_bin": "OFF"}))
    assert bool(without_binlog) == (setting not in {"sync_binlog", "binlog_format"})


def test_settings_of_sqlite_that_weaken_the_guarantees() -> None:
    assert list(sqlite_issues({"file": "outbox.db", "journal_mode": "wal"})) == []
    [memory] = sqlite_issues({"file": "", "journal_mode": "memory"})
    [rollback] = sqlite_issues({"file": "outbox.db", "journal_mode": "delete"})
    assert (memory.serious, rollback.serious) == (True, False)


async def test_the_console_script_imports_jobs_from_where_it_is_run(
    driver: DatabaseDriver, migrated_url: str, shop: Path
) -> None:
    """`python -m` has the directory in its path; a script has its own."""
    script = shop / "bin" / "outbox"
    script.parent.mkdir()
    script.write_text("from outbox.__main__ import main\nmain()\n")
    environment = {"DATABASE_URL": migrated_url, "OUTBOX_JOBS": "shop_jobs"}
    ran = await run_process(shop, "check", "--json", program=[str(script)], **environment)
    assert found(ran, "problem") == []
