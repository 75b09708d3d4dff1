"""A form is carried out once, however often and to whichever process of the dashboard it is sent."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from sqlalchemy import select

import outbox
from outbox.drivers.database import DatabaseDriver
from outbox.drivers.database.tables import metadata
from outbox.ids import new_job_id
from outbox.settings import Settings
from outbox.web import dashboard
from outbox.web.actions import action_routes
from outbox.web.routes import DashboardRoute, Guard
from tests.conformance.jobs import envelope, envelopes
from tests.servers import sql
from tests.support.commands import fail
from tests.support.dashboards import BASE, Letter, browser, fill, mounted, signed_in, told

FIELD = re.compile(r'<input type="hidden" name="form" value="([0-9a-f-]{36})">')
Client = httpx.AsyncClient


@dataclass(frozen=True)
class Case:
    path: str
    fields: Mapping[str, str] = field(default_factory=dict)
    before: Callable[[DatabaseDriver], Awaitable[object]] | None = None
    """What there is to act on: before the form is sent, and once more before it is replayed."""
    undo: tuple[str, Mapping[str, str]] | None = None
    """The action after which the form would do something again."""


async def letters(driver: DatabaseDriver) -> None:
    await driver.jobs.insert(envelopes(3, queue="mail"))


async def failures(driver: DatabaseDriver) -> None:
    await fail(driver, *envelopes(2))


LETTER = {"name": Letter.name, "field.email": "a@b.c", "field.text": "hello"}
CASES = [
    Case("/classes/dispatch", LETTER),
    Case("/jobs/{live}/copy"),
    Case("/schedules/run", {"name": "report"}),
    Case("/schedules/pause", {"name": "report"}, undo=("/schedules/resume", {"name": "report"})),
    *(Case(f"/operations/{verb}", {"queue": "mail"}, letters) for verb in ("cancel", "retry", "forget")),
    Case("/operations/move", {"queue": "mail", "to": "slow"}, letters),
    Case("/queues/mail/clear", before=letters),
    Case("/queues/mail/pause", undo=("/queues/mail/resume", {})),
    Case("/failures/retry", before=failures),
    Case("/failures/forget", before=failures),
    Case("/keys/pause", {"key": "customer:7"}, undo=("/keys/resume", {"key": "customer:7"})),
    Case("/limits/set", {"name": "mailgun", "value": "5/m"}, undo=("/limits/reset", {"name": "mailgun"})),
    Case("/classes/pause", {"name": Letter.name}, undo=("/classes/resume", {"name": Letter.name})),
    Case("/jobs/{live}/reschedule", {"when": "2h"}, undo=("/jobs/{live}/run", {})),
    Case("/jobs/{live}/change", {"queue": "other"}, undo=("/jobs/{live}/change", {"queue": "mail"})),
]


def rows(url: str) -> dict[str, list[Any]]:
    """All that the database of outbox holds."""
    with sql.connection(url) as connection:
        return {name: sorted(map(repr, connection.execute(select(table)))) for name, table in metadata.tables.items()}


async def send(client: Client, path: str, fields: Mapping[str, str]) -> httpx.Response:
    return await client.post(BASE + path, data={"connection": "database"} | dict(fields))


@pytest.mark.sqlite
@pytest.mark.parametrize("backend", ["sqlite"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.path.strip("/"))
async def test_a_form_that_is_sent_again_is_refused(
    driver: DatabaseDriver, settings: Settings, migrated_url: str, case: Case
) -> None:
    shown = await fill(driver)
    with outbox.Outbox(settings).use():
        await outbox.schedules.add("report", "0 7 * * *", Letter(email="a@b.c"))
    path = case.path.format(live=shown.ready)
    form = {"form": str(new_job_id())} | case.fields
    prepare = case.before or _nothing
    await prepare(driver)
    async with (
        browser(mounted(dashboard(signed_in(), settings=settings))) as one,
        browser(mounted(dashboard(signed_in(), settings=settings))) as other,
    ):
        assert (await send(one, path, form)).status_code == 303
        await prepare(driver)
        if case.undo is not None:
            undo, fields = case.undo
            assert (await send(one, undo.format(live=shown.ready), fields)).status_code == 303
        before = rows(migrated_url)
        for client in (one, other):
            again = await send(client, path, form)
            assert again.status_code == 409, told(again)
            assert "before" in told(again)
        assert rows(migrated_url) == before
        anew = await send(other, path, form | {"form": str(new_job_id())})
        assert (anew.status_code, rows(migrated_url) != before) == (303, True), "another form does it once more"


async def _nothing(_: DatabaseDriver) -> None: ...


def test_each_action_that_can_be_repeated_is_tried(settings: Settings) -> None:
    """Left out is what needs a batch, a key or a worker that runs, and what cannot happen twice to the same thing: a
    backfill passes over ticks that have had their jobs."""
    guard = Guard(None, frozenset(), (), None, None)  # type: ignore[arg-type]
    paths = {route.path for route in action_routes(guard) if isinstance(route, DashboardRoute)}
    tried = {re.sub(r"\{live\}", "{id}", case.path).replace("/mail/", "/{queue}/") for case in CASES}
    tried |= {re.sub(r"\{live\}", "{id}", case.undo[0]).replace("/mail/", "/{queue}/") for case in CASES if case.undo}
    assert tried <= paths
    once = {"/jobs/{id}/cancel", "/failures/{id}/retry", "/failures/{id}/forget", "/operations/{id}/stop"}
    once |= {"/schedules/backfill"}
    once |= {path for path in paths if path.startswith(("/batches/", "/workers/", "/keys/retry", "/keys/skip"))}
    assert paths == tried | once


@pytest.mark.sqlite
@pytest.mark.parametrize("backend", ["sqlite"])
async def test_each_form_of_a_page_has_an_id_of_its_own(driver: DatabaseDriver, admin: Client) -> None:
    shown = await fill(driver)
    pages = ["/queues/mail", f"/jobs/{shown.ready}", f"/jobs/{shown.ready}/copy", "/keys", "/failures"]
    pages += [f"/classes/one?name={Letter.name}", f"/classes/dispatch?name={Letter.name}", "/workers"]
    pages += ["/operations/new?verb=cancel&queue=mail"]
    found: list[str] = []
    for page in pages:
        text = (await admin.get(BASE + page)).text
        ids = FIELD.findall(text)
        assert len(ids) == text.count('method="post"'), page
        found += ids
    assert len(found) > len(pages) / 2
    assert len(set(found)) == len(found)


@pytest.mark.sqlite
@pytest.mark.parametrize("backend", ["sqlite"])
async def test_a_form_that_was_refused_can_be_sent_again(driver: DatabaseDriver, admin: Client) -> None:
    form = {"form": str(new_job_id()), "name": Letter.name}
    wrong = await send(admin, "/classes/dispatch", form)
    assert (wrong.status_code, "Field required" in told(wrong)) == (200, True)
    assert (await send(admin, "/classes/dispatch", form | {"delay": "soon"})).status_code in (200, 400)
    assert (await send(admin, "/classes/dispatch", LETTER | form)).status_code == 303
    assert len(await driver.jobs.list_jobs()) == 1
    odd = await send(admin, "/classes/dispatch", LETTER | {"form": "none"})
    assert (odd.status_code, "is no id" in told(odd)) == (400, True)


@pytest.mark.sqlite
@pytest.mark.parametrize("backend", ["sqlite"])
async def test_a_process_refuses_what_redis_was_told_before(migrated_url: str, redis_url: str) -> None:
    settings = Settings(database_url=migrated_url, redis_url=redis_url)
    form = LETTER | {"form": str(new_job_id()), "connection": "redis", "queue": "fast"}
    async with browser(mounted(dashboard(signed_in(), settings=settings))) as client:
        assert (await send(client, "/classes/dispatch", form)).status_code == 303
        assert (await send(client, "/classes/dispatch", form)).status_code == 409
    with outbox.Outbox(settings).use():
        assert [job.queue for job in (await outbox.jobs(connection="redis")).jobs] == ["fast"]


@pytest.mark.sqlite
@pytest.mark.parametrize("backend", ["sqlite"])
async def test_a_dispatch_from_the_dashboard_is_in_the_audit_log(driver: DatabaseDriver, admin: Client) -> None:
    job = envelope(payload='{"email": "a@b.c", "text": "secret"}')._replace(name=Letter.name)
    await driver.jobs.insert([job])
    assert (await send(admin, "/classes/dispatch", LETTER | {"queue": "urgent"})).status_code == 303
    assert (await send(admin, f"/jobs/{job.id}/copy", {})).status_code == 303
    copied, dispatched = await driver.audit.latest(5)
    assert (dispatched.by, dispatched.action, dispatched.count) == ("Ada", "dispatch", 1)
    assert dict(dispatched.target) == {"name": Letter.name, "queue": "urgent"}, "and no field of the job"
    assert (copied.action, dict(copied.target)) == ("copy", {"id": str(job.id)})
