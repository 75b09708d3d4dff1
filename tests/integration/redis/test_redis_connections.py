"""Which driver the settings mean where Redis is one of the connections."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from outbox.connections import connection_settings, open_driver
from outbox.drivers.database import DatabaseDriver
from outbox.drivers.redis import RedisDriver
from outbox.drivers.redis.operations.failed_job_export import ExportedFailedJobs
from outbox.drivers.redis.operations.failed_jobs import FailedJobs
from outbox.errors import ConfigurationError
from outbox.settings import Settings

URL = "redis://127.0.0.1:1/0"


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory without a `.env`, and with a `pyproject.toml` that says nothing."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").touch()
    return tmp_path


async def test_the_connection_redis_is_the_server_of_the_settings() -> None:
    driver = open_driver(Settings.load(redis_url=URL), "redis")
    assert isinstance(driver, RedisDriver)
    assert (driver.name, driver.description) == ("redis", URL)
    await driver.close()


def test_without_a_server_the_connection_says_what_to_set() -> None:
    with pytest.raises(ConfigurationError, match="set REDIS_URL"):
        connection_settings(Settings.load(), "redis")
    with pytest.raises(ConfigurationError, match="there are: database, redis"):
        connection_settings(Settings.load(), "rabbit")


async def test_a_connection_of_another_name_can_be_a_redis(nowhere: Path) -> None:
    (nowhere / "pyproject.toml").write_text(
        f'[tool.outbox.connections.fast]\ndriver = "redis"\nurl = "{URL}"\n'
        '[tool.outbox.connections.odd]\ndriver = "rabbit"\nurl = "x"\n'
    )
    driver = open_driver(Settings.load(), "fast")
    assert isinstance(driver, RedisDriver)
    assert driver.name == "fast"
    await driver.close()
    with pytest.raises(ConfigurationError, match="there are: database, redis"):
        open_driver(Settings.load(), "odd")


async def test_failed_jobs_stay_in_redis_where_no_database_was_configured() -> None:
    driver = open_driver(Settings.load(redis_url=URL), "redis")
    assert isinstance(driver, RedisDriver)
    assert type(driver.failed) is FailedJobs
    await driver.close()


@pytest.mark.parametrize("way", ["code", "environment", ".env", "pyproject.toml"])
async def test_failed_jobs_go_to_a_database_that_was_configured(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    url = f"sqlite+aiosqlite:///{nowhere}/shop.db"
    given: dict[str, Any] = {"redis_url": URL}
    match way:
        case "code":
            given["database_url"] = url
        case "environment":
            monkeypatch.setenv("DATABASE_URL", url)
        case ".env":
            (nowhere / ".env").write_text(f"DATABASE_URL={url}\n")
        case _:
            (nowhere / "pyproject.toml").write_text(f'[tool.outbox]\ndatabase_url = "{url}"\n')
    driver = open_driver(Settings.load(**given), "redis")
    assert isinstance(driver, RedisDriver)
    assert isinstance(driver.failed, ExportedFailedJobs)
    await driver.close()


async def test_the_database_leaves_the_failed_jobs_of_every_redis_alone(nowhere: Path) -> None:
    (nowhere / "pyproject.toml").write_text(
        f'[tool.outbox.connections.fast]\ndriver = "redis"\nurl = "{URL}"\n'
        f'[tool.outbox.connections.other]\nurl = "sqlite+aiosqlite:///{nowhere}/other.db"\n'
    )
    settings = Settings.load(database_url=f"sqlite+aiosqlite:///{nowhere}/shop.db")
    names: dict[str, object] = {}
    for name in ("database", "other"):
        driver = open_driver(settings, name)
        assert isinstance(driver, DatabaseDriver)
        names[name] = driver.failed.scope.but
        await driver.close()
    assert names == {"database": {"redis", "fast"}, "other": frozenset()}


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "outbox.drivers.redis", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'outbox-queue\[redis\]'"):
        open_driver(Settings.load(redis_url=URL), "redis")
