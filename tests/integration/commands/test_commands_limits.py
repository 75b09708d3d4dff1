"""`outbox limits`: what is left, and what is changed at run time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from outbox import Job, RateLimit, limits
from outbox.drivers.database import DatabaseDriver
from outbox.errors import ConfigurationError
from tests.support.commands import run

RateLimit("tests.pages", "2/h", burst=2)


class CallApi(Job):
    name = "tests.limits.CallApi"
    rate = "1/h"
    rate_key = "api_key"
    api_key: str

    def handle(self) -> None: ...


class Charge(Job):
    name = "tests.limits.Charge"
    concurrency_key = "customer"
    customer: str

    def handle(self) -> None: ...


@pytest.fixture
async def driver(migrated_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[DatabaseDriver]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", migrated_url)
    driver = DatabaseDriver(migrated_url)
    yield driver
    await driver.close()


async def test_limits_are_shown_set_and_reset(driver: DatabaseDriver, migrated_url: str) -> None:
    assert "No limits." in (await run(migrated_url, "limits")).out
    assert await limits.take("tests.pages", 2)
    assert not await limits.take("tests.pages", timeout=0)
    [shown] = (await run(migrated_url, "limits", "list", "--json")).document["limits"]
    assert (shown["name"], shown["rate"], shown["left"], shown["is_set"]) == ("tests.pages", "2/h", 0, False)
    await run(migrated_url, "limits", "set", "tests.pages", "1000/s", "--burst", "9")
    assert await limits.take("tests.pages", timeout=5)
    assert "by hand" in (await run(migrated_url, "limits")).out
    await run(migrated_url, "limits", "reset", "tests.pages")
    assert (await run(migrated_url, "limits", "reset", "tests.pages")).code == 1


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("tests.limits.CallApi", "5", "tests.limits.CallApi has no concurrency_key: the limit is for jobs whose"),
        ("CallApi", "5", "no job is named CallApi"),
        ("CallApi", "5/m", "of OUTBOX_JOBS is named CallApi: did you mean tests.limits.CallApi?"),
        ("tests.page", "5/m", "of OUTBOX_JOBS is named tests.page: did you mean tests.pages?"),
        ("tests.limits.Charge", "5", ""),
        ("tests.limits.CallApi", "5/m", ""),
        ("tests.pages", "5/m", ""),
    ],
)
async def test_a_limit_that_no_job_has_is_said(
    driver: DatabaseDriver, migrated_url: str, name: str, value: str, said: str
) -> None:
    done = await run(migrated_url, "limits", "set", name, value)
    assert (done.code, said in done.err, bool(said)) == (0, True, bool(done.err))
    assert [limit.name for limit in await driver.limits.list()] == [name]


async def test_an_unknown_limit_says_what_to_do(driver: DatabaseDriver) -> None:
    with pytest.raises(ConfigurationError, match="outbox limits set no-such"):
        await limits.take("no-such")


async def test_the_limit_of_a_class_is_taken_by_the_name_of_its_job(driver: DatabaseDriver) -> None:
    assert await limits.take(CallApi.name, key="a", timeout=0)
    assert not await limits.take(CallApi.name, key="a", timeout=0)
    assert await limits.take(CallApi.name, key="b", timeout=0)


async def test_what_is_no_limit_is_refused(driver: DatabaseDriver, migrated_url: str) -> None:
    for wrong in ("0", "65536", "\u00b2", "\u0663", "2/w", "\u0663/s"):
        refused = await run(migrated_url, "limits", "set", "tests.pages", wrong)
        assert (refused.code, "Traceback" in refused.err) == (2, False)
