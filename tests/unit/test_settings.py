"""Flags > environment and .env > pyproject.toml > defaults."""

from __future__ import annotations

from pathlib import Path

import pytest

import outbox
from outbox import Settings, WorkerOptions
from outbox.connections import connection_settings, current_settings, open_driver
from outbox.errors import ConfigurationError


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_defaults_need_no_server() -> None:
    settings = Settings.load()
    assert (settings.connection, settings.database_url) == ("database", "sqlite+aiosqlite:///outbox.db")
    assert (settings.jobs, settings.payload_limit) == ((), 1_048_576)


def test_each_layer_goes_before_the_next(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (elsewhere / "pyproject.toml").write_text(
        '[tool.outbox]\njobs = "a, b"\nconcurrency = 2\nlease = 12\nsleep = 3\n'
        '[tool.outbox.connections.reports]\nurl = "sqlite+aiosqlite:///reports.db"\n'
    )
    (elsewhere / ".env").write_text("OUTBOX_CONCURRENCY=3\nOUTBOX_LEASE=13\nDATABASE_URL=sqlite+aiosqlite:///env.db\n")
    monkeypatch.setenv("OUTBOX_CONCURRENCY", "4")
    options = WorkerOptions.load(queue="mail,default")
    assert (options.sleep, options.lease, options.concurrency, options.queue) == (3, 13, 4, ("mail", "default"))
    assert WorkerOptions.load(concurrency=5).concurrency == 5
    settings = Settings.load()
    assert (settings.jobs, settings.database_url) == (("a", "b"), "sqlite+aiosqlite:///env.db")
    assert connection_settings(settings, "reports").url == "sqlite+aiosqlite:///reports.db"


def test_flags_go_before_a_profile_and_a_profile_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTBOX_QUEUE", "everything")
    monkeypatch.setenv("OUTBOX_CONCURRENCY", "9")
    profile = WorkerOptions(queue="mail", lease=20)
    flagged = profile.overridden(lease=5)
    assert (flagged.queue, flagged.lease, flagged.concurrency) == (("mail",), 5, 9)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"concurrency": 0}, "concurrency"),
        ({"queue": "Not A Queue"}, "queue"),
        ({"queue": ""}, "at least one queue"),
        ({"backoff": "1,soon"}, "backoff"),
        ({"backoff": "-1"}, "backoff"),
        ({"lease": 0}, "lease"),
        ({"max_tries": 0}, "max_tries"),
    ],
)
def test_a_wrong_value_is_named_with_its_range(given: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        WorkerOptions.load(**given)


def test_the_settings_of_dispatch_follow_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "sqlite+aiosqlite:///one.db")
    assert current_settings().database_url.endswith("one.db")
    monkeypatch.setenv("DATABASE_URL", "sqlite+aiosqlite:///two.db")
    assert current_settings().database_url.endswith("two.db")
    outbox.configure(database_url="sqlite+aiosqlite:///given.db")
    assert current_settings().database_url.endswith("given.db")
    outbox.configure()
    assert current_settings().database_url.endswith("two.db")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("nonsense", "mysql\\+asyncmy"),
        ("postgresql+asyncpg://u:secret@h/d", "not in postgresql"),
        ("mysql+pymysql://u:secret@h/d", "asyncmy"),
        ("sqlite+pysqlite:///x.db", "aiosqlite"),
    ],
)
def test_a_url_that_cannot_work_says_what_would(url: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as caught:
        open_driver(Settings.load(database_url=url), "database")
    assert "secret" not in str(caught.value)


async def test_a_url_without_a_driver_gets_the_right_one() -> None:
    driver = open_driver(Settings.load(database_url="sqlite:///x.db"), "database")
    assert driver.description == "sqlite+aiosqlite:///x.db"
    await driver.close()


def test_an_unknown_connection_lists_those_there_are() -> None:
    with pytest.raises(ConfigurationError, match="there are: database"):
        open_driver(Settings.load(), "elsewhere")
