"""The audit log: an entry for each change that a person makes, in the transaction of the change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

import outbox
from outbox.drivers.audit import AuditEntry, acting
from outbox.drivers.bulk import BulkFilter, BulkRequest, Verb
from outbox.drivers.database import DatabaseDriver
from outbox.errors import InvalidOption, JobNotFound, RepeatedAction
from outbox.ids import JobId, new_job_id
from outbox.policies.rate_limits import Terms
from tests.conformance.jobs import envelope, envelopes
from tests.servers import sql
from tests.support.commands import fail
from tests.support.orders import async_engine


@pytest.fixture(autouse=True)
async def configured(migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    monkeypatch.setenv("DATABASE_URL", migrated_url)
    yield
    await outbox.disconnect()


def shown(entries: list[AuditEntry]) -> list[tuple[str, str, dict[str, object], int]]:
    return [(entry.by, entry.action, dict(entry.target), entry.count) for entry in reversed(entries)]


async def test_what_a_person_changes_is_recorded_and_nothing_else(database: DatabaseDriver, migrated_url: str) -> None:
    jobs = envelopes(1_203, queue="mail")
    await database.jobs.insert([*jobs, envelope(queue="other")])
    claims = await fail(database, envelope(queue="failing"), envelope(queue="failing"))
    one, two = (claim.fence.job_id for claim in claims)
    assert await outbox.cancel(jobs[0].id, by="anna")
    assert not await outbox.cancel(jobs[0].id, by="anna"), "it is gone: there is nothing to record"
    assert await outbox.cancel(jobs[1].id)
    assert await outbox.clear("mail", by="anna") == 1_201
    assert await outbox.retry(one, by="bert")
    assert await outbox.forget_all(queue="failing", by="bert") == 1
    assert await outbox.pause("mail", by="bert")
    assert await outbox.reschedule(one, delay=60, by="bert")
    with acting("bert", "limits set", {"name": "mailgun"}):
        await database.limits.set("mailgun", Terms.model_construct(name="mailgun", rate="5/m", burst=None, align=None))
    assert shown(await database.audit.latest(10)) == [
        ("anna", "cancel", {"id": str(jobs[0].id)}, 1),
        ("anna", "clear", {"queue": "mail"}, 1_201),
        ("bert", "retry", {"id": str(one)}, 1),
        ("bert", "forget", {"queue": "failing"}, 1),
        ("bert", "pause", {"queue": "mail"}, 1),
        ("bert", "reschedule", {"id": str(one), "delay": 60.0}, 1),
        ("bert", "limits set", {"name": "mailgun"}, 1),
    ]
    assert await database.failed.get(two) is None
    assert [each.by for each in await outbox.pauses()] == ["bert"]
    for nobody in ("", 7, "x" * 256):
        with pytest.raises(InvalidOption, match="name of a person"):
            await outbox.clear("mail", by=nobody)  # type: ignore[arg-type]
    latest = await database.audit.latest(2)
    assert [entry.action for entry in await database.audit.latest(2, before=latest[-1].id)] == ["pause", "forget"]
    with sql.connection(migrated_url) as connection:
        connection.execute(text("UPDATE queue_audit SET acted_at = '2026-01-01 00:00:00' WHERE acted_by = 'anna'"))
        connection.commit()
    await database.policies.upkeep()
    assert {entry.by for entry in await database.audit.latest(10)} == {"bert"}


async def test_a_request_is_carried_out_once(database: DatabaseDriver, migrated_url: str) -> None:
    """Also where the transaction of another process that carries it out is not committed yet."""
    request, first, second = new_job_id(), envelope(), envelope()
    with acting("anna", "dispatch", {}, request):
        await database.jobs.insert([first])
        await database.jobs.insert([envelope(queue="more")])
    assert [entry.count for entry in await database.audit.latest(5)] == [2], "one action may take several transactions"

    async def again(wanted: JobId) -> None:
        with acting("anna", "dispatch", {}, wanted):
            await database.jobs.insert([second])

    with pytest.raises(RepeatedAction, match="done: dispatch"):
        await again(request)
    other = new_job_id()
    with sql.connection(migrated_url) as connection:
        connection.exec_driver_sql("BEGIN")
        connection.execute(
            text("INSERT INTO queue_audit VALUES (:id, '2026-11-01 00:00:00', 'anna', 'dispatch', '{}', 1)"),
            {"id": other.bytes},
        )
        waiting = asyncio.create_task(again(other))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        connection.exec_driver_sql("COMMIT")
        with pytest.raises(RepeatedAction):
            await waiting
    assert second.id not in {job.id for job in await database.jobs.list_jobs()}
    with acting("anna", "bulk clear", {}, request), pytest.raises(RepeatedAction):
        await database.operations.start(BulkRequest(Verb.CANCEL, BulkFilter()), "anna")
    assert await database.operations.latest(5) == []
    await again(new_job_id())
    assert second.id in {job.id for job in await database.jobs.list_jobs()}


async def test_entries_are_listed_by_their_times(database: DatabaseDriver) -> None:
    """A form has its id long before it is sent."""
    old = new_job_id()
    for request in (new_job_id(), old, new_job_id(), JobId(int=old.int - 1)):
        with acting("anna", f"dispatch {request}", {}, request):
            await database.jobs.insert([envelope()])
        await asyncio.sleep(0.002)  # SQLite's clock has milliseconds
    whole = await database.audit.latest(9)
    assert [entry.at for entry in whole] == sorted((entry.at for entry in whole), reverse=True)
    assert whole[0].id == JobId(int=old.int - 1)
    pages = [await database.audit.latest(1, before=entry.id) for entry in whole]
    assert pages == [[entry] for entry in whole[1:]] + [[]]
    with pytest.raises(JobNotFound, match="begin again with the first page"):
        await database.audit.latest(1, before=new_job_id())


async def test_an_entry_commits_with_the_transaction_of_its_action(database: DatabaseDriver, migrated_url: str) -> None:
    kept, gone = envelopes(2)
    await database.jobs.insert([kept, gone])
    engine = async_engine(migrated_url)
    async with AsyncSession(engine) as session:
        assert await outbox.cancel(kept.id, session=session, by="anna")
        await session.rollback()
        assert await outbox.cancel(gone.id, session=session, by="anna")
        await session.commit()
    await engine.dispose()
    assert shown(await database.audit.latest(10)) == [("anna", "cancel", {"id": str(gone.id)}, 1)]
    assert await database.jobs.get(kept.id) is not None


async def test_an_action_whose_entry_cannot_be_written_does_not_happen(
    database: DatabaseDriver, migrated_url: str
) -> None:
    await database.jobs.insert([job := envelope()])
    with sql.connection(migrated_url) as connection:
        connection.execute(text("ALTER TABLE queue_audit RENAME TO queue_audit_elsewhere"))
        connection.commit()
    with pytest.raises(outbox.OutboxError):
        await outbox.cancel(job.id, by="anna")
    assert await database.jobs.get(job.id) is not None
