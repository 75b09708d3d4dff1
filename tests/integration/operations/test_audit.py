"""The audit log: an entry for each change that a person makes, in the transaction of the change."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

import outbox
from outbox.drivers.audit import AuditEntry, acting
from outbox.drivers.database import DatabaseDriver
from outbox.errors import InvalidOption
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
