"""Schedules that code declares: how workers of an old and of a new release agree on them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

import outbox
from outbox import Job, schedule, schedules
from outbox.drivers.database import DatabaseDriver
from outbox.drivers.schedules import Declared
from outbox.errors import ConfigurationError, InvalidOption
from outbox.policies.schedule import JobTemplate
from tests.servers import sql
from tests.support.schedule_jobs import Digest, definition, set_next, stored, ticks


@pytest.fixture(autouse=True)
def settings(migrated_url: str) -> Iterator[None]:
    outbox.configure(database_url=migrated_url)
    yield
    outbox.configure()


def declared(when: str, **options: Any) -> Declared:
    chosen = definition(when, **options)

    def template() -> JobTemplate:
        assert chosen.job is not None
        return chosen.job

    return Declared("digest", chosen, template)


OLD, NEW = ("1h", "2h")


def unseen_for(url: str, seconds: float, driver: DatabaseDriver) -> None:
    moment = f"{driver.database.dialect.now_plus(str(int(-seconds * 1_000_000)))}"
    with sql.connection(url) as connection:
        connection.execute(text(f"UPDATE queue_schedules SET seen_at = {moment.replace(':', chr(92) + ':')}"))
        connection.commit()


async def test_a_declaration_is_stored_once(database: DatabaseDriver) -> None:
    assert await database.schedules.sync([declared(OLD)]) == []
    first = await stored(database)
    assert (first.declaration, first.definition.when) == (declared(OLD).hash, OLD)
    await database.schedules.sync([declared(OLD)])
    assert (await stored(database)).next_at == first.next_at


async def test_a_new_release_changes_it_and_the_old_one_leaves_it_alone(database: DatabaseDriver) -> None:
    await database.schedules.sync([declared(OLD)])
    await database.schedules.sync([declared(NEW)])
    assert (await stored(database)).definition.when == NEW
    await database.schedules.sync([declared(OLD)])
    assert (await stored(database)).definition.when == NEW, "a worker of the old release starts once more"
    assert await database.schedules.next_due([declared(OLD).hash]) == []
    assert [each.name for each in await database.schedules.next_due([declared(NEW).hash])] == ["digest"]


async def test_when_no_worker_knows_the_newer_declaration_the_older_returns(
    database: DatabaseDriver, migrated_url: str
) -> None:
    """The deploy was undone."""
    await database.schedules.sync([declared(OLD)])
    await database.schedules.sync([declared(NEW)])
    unseen_for(migrated_url, 170, database)
    await database.schedules.sync([declared(OLD)])
    assert (await stored(database)).definition.when == NEW
    unseen_for(migrated_url, 190, database)
    await database.schedules.sync([declared(OLD)])
    assert (await stored(database)).definition.when == OLD
    await database.schedules.sync([declared(NEW)])
    assert (await stored(database)).definition.when == OLD, "now the other is the older one"


async def test_workers_say_that_they_know_it_once_a_minute(database: DatabaseDriver, migrated_url: str) -> None:
    await database.schedules.sync([declared(OLD)])
    await database.schedules.sync([declared(NEW)])
    unseen_for(migrated_url, 170, database)
    await database.schedules.sync([declared(NEW)])
    unseen = "SELECT COUNT(*) FROM queue_schedules WHERE seen_at > " + database.database.dialect.now_plus("-60000000")
    with sql.connection(migrated_url) as connection:
        assert connection.exec_driver_sql(unseen).scalar() == 1


async def test_a_change_that_keeps_the_timetable_keeps_a_tick_that_is_due(
    database: DatabaseDriver, migrated_url: str
) -> None:
    await database.schedules.sync([declared(OLD)])
    missed = await database.now() - timedelta(minutes=10)
    set_next(database, migrated_url, "digest", missed)
    await database.schedules.sync([declared(OLD, jitter=1)])
    assert (await stored(database)).next_at == missed
    await database.schedules.sync([declared(NEW)])
    next_at = (await stored(database)).next_at
    assert next_at is not None
    assert next_at > missed


async def test_a_declared_schedule_belongs_to_code(database: DatabaseDriver) -> None:
    await database.schedules.sync([declared(OLD)])
    with pytest.raises(InvalidOption, match="declared in code"):
        await schedules.add("digest", "@daily", Digest())
    await schedules.remove("digest")
    await schedules.add("digest", "@daily", Digest())
    assert await database.schedules.sync([declared(OLD)]) == ["digest"], "and one that was added, to who added it"
    assert (await stored(database)).declaration is None


async def test_a_tick_makes_its_job_with_the_defaults_of_now(database: DatabaseDriver, migrated_url: str) -> None:
    mine = declared(OLD)
    await database.schedules.sync([mine])
    set_next(database, migrated_url, "digest", await database.now() - timedelta(minutes=70))

    def template() -> JobTemplate:
        return mine.template().model_copy(update={"payload": '{"tenant":8}'})

    await database.schedules.tick("digest", {"digest": template})
    [job] = await database.jobs.list_jobs()
    assert job.payload.replace(" ", "") == '{"tenant":8}'
    assert len(await ticks(database)) == 1


def refused(message: str, decorator: Any, **fields: Any) -> None:
    class Report(Job):
        __annotations__ = fields

        async def handle(self) -> None: ...

    with pytest.raises(ConfigurationError, match=message):
        decorator()(Report)


@pytest.mark.parametrize(
    ("message", "decorator"),
    [
        ("there is no time zone", lambda: schedule("@daily", tz="Mars/Base")),
        ("never ticks", lambda: schedule("0 0 31 4 *")),
        ("at most 255 characters", lambda: schedule("*" * 10_000)),
        ("grace is a number", lambda: schedule("@daily", grace=-1)),
        ("jitter is a number", lambda: schedule("@daily", jitter="30")),  # type: ignore[arg-type]
        ("misfire is one of", lambda: schedule("@daily", misfire="twice")),
        ("overlap is one of", lambda: schedule("@daily", overlap="queue")),
        ("one of them", lambda: schedule()),
        ("one of them", lambda: schedule("@daily", every="5m")),
        ("a schedule's name", lambda: schedule("@daily", name="")),
        ("not 5", lambda: schedule(5)),  # type: ignore[arg-type]
    ],
)
def test_what_a_class_is_refused_for(message: str, decorator: Any) -> None:
    refused(message, decorator)


def test_a_class_must_be_made_without_fields() -> None:
    refused("its field `tenant`", lambda: schedule("@daily"), tenant=int)


def test_it_decorates_jobs_only() -> None:
    with pytest.raises(ConfigurationError, match="decorates a Job class"):
        schedule("@daily")(int)  # type: ignore[type-var]
