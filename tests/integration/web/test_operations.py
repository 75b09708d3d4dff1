"""Bulk operations and the audit log in the dashboard."""

from __future__ import annotations

import httpx
import pytest

from outbox.drivers.bulk import BulkFilter, BulkRequest, BulkState, Verb
from outbox.drivers.database import DatabaseDriver
from outbox.ids import new_job_id
from outbox.settings import Settings
from outbox.web import Viewer, dashboard
from tests.conformance.jobs import envelope, envelopes
from tests.support.commands import fail
from tests.support.dashboards import BASE, browser, mounted, told

pytestmark = pytest.mark.sqlite


@pytest.fixture
def backend() -> str:
    """Every database is tested below the dashboard."""
    return "sqlite"


async def test_an_operation_begins_from_a_preview_and_is_stopped(
    driver: DatabaseDriver, admin: httpx.AsyncClient
) -> None:
    await driver.jobs.insert([*envelopes(7, queue="mail"), envelope(queue="other")])
    jobs = await admin.get(f"{BASE}/jobs?queue=mail")
    assert "/operations/new?connection=database&amp;verb=cancel&amp;queue=mail" in jobs.text
    seen = await admin.get(f"{BASE}/operations/new?verb=move&queue=mail&to=slow")
    assert "7 live jobs match" in told(seen)
    assert "Move 7 jobs" in told(seen)
    fields = {"connection": "database", "queue": "mail", "to": "slow"}
    began = await admin.post(f"{BASE}/operations/move", data=fields)
    page = await admin.get(began.headers["location"])
    assert "Workers move 7 jobs." in told(page)
    assert "waiting" in told(page)
    [made] = await driver.operations.latest(5)
    assert (made.request, made.by) == (BulkRequest(Verb.MOVE, BulkFilter(queue="mail"), "slow"), "Ada")
    stop = {"connection": "database"}
    assert (await admin.post(f"{BASE}/operations/{made.id}/stop", data=stop)).status_code == 303
    page = await admin.get(f"{BASE}/operations")
    assert "Stopped after 0 jobs." in told(page)
    assert "bulk stop" in told(page)
    assert "bulk move" in told(page)
    again = await admin.post(f"{BASE}/operations/{made.id}/stop", data=stop)
    assert "It had ended already." in told(await admin.get(again.headers["location"]))
    assert (await admin.post(f"{BASE}/operations/{new_job_id()}/stop", data=stop)).status_code == 404
    await driver.operations.work_off()
    assert len(await driver.jobs.list_jobs("mail")) == 7


async def test_failures_are_retried_from_their_page(driver: DatabaseDriver, admin: httpx.AsyncClient) -> None:
    await fail(driver, *envelopes(3))
    page = await admin.get(f"{BASE}/failures/jobs?error=ConnectionRefusedError")
    assert "/operations/new?connection=database&amp;verb=retry&amp;error=ConnectionRefusedError" in page.text
    await admin.post(f"{BASE}/operations/retry", data={"connection": "database", "error": "ConnectionRefusedError"})
    await driver.operations.work_off()
    [made] = await driver.operations.latest(5)
    assert (made.state, made.done) == (BulkState.FINISHED, 3)
    assert "3 of 3" in told(await admin.get(f"{BASE}/operations"))


async def test_a_group_is_chosen_from_its_page(driver: DatabaseDriver, admin: httpx.AsyncClient) -> None:
    await fail(driver, *envelopes(3))
    [group] = await driver.failed.groups()
    page = await admin.get(f"{BASE}/failures/jobs?group={group.fingerprint}")
    assert f"verb=retry&amp;group={group.fingerprint}" in page.text
    seen = await admin.get(f"{BASE}/operations/new?verb=retry&group={group.fingerprint}")
    assert "3 failed jobs match" in told(seen)
    fields = {"connection": "database", "group": group.fingerprint}
    assert (await admin.post(f"{BASE}/operations/forget", data=fields)).status_code == 303
    [made] = await driver.operations.latest(5)
    assert made.request == BulkRequest(Verb.FORGET, BulkFilter(group=group.fingerprint))
    assert f"group {group.fingerprint}" in told(await admin.get(f"{BASE}/operations"))
    wrong = await admin.get(f"{BASE}/operations/new?verb=cancel&group={group.fingerprint}")
    assert (wrong.status_code, "is about live jobs" in told(wrong)) == (400, True)


async def test_a_queue_is_moved_from_its_page(
    driver: DatabaseDriver, admin: httpx.AsyncClient, settings: Settings
) -> None:
    await driver.jobs.insert(envelopes(3, queue="mail"))
    page = await admin.get(f"{BASE}/queues/mail")
    assert 'name="verb" value="move"' in page.text
    async with browser(mounted(dashboard(lambda _: Viewer("Bo", "viewer"), settings=settings))) as viewer:
        assert 'value="move"' not in (await viewer.get(f"{BASE}/queues/mail")).text


async def test_pages_go_on_by_id(driver: DatabaseDriver, admin: httpx.AsyncClient) -> None:
    for _ in range(3):
        await driver.operations.start(BulkRequest(Verb.RETRY, BulkFilter(queue="mail")), "bert")
    page = await admin.get(f"{BASE}/operations?limit=2")
    made = await driver.operations.latest(5)
    assert f"before={made[1].id}" in page.text
    assert f"audit_before={made[1].id}" in page.text
    rest = await admin.get(f"{BASE}/operations?limit=2&before={made[1].id}&audit_before={made[1].id}")
    assert str(made[2].id) in rest.text
    assert str(made[0].id) not in rest.text


@pytest.mark.parametrize(
    ("path", "right"),
    [("cancel", "clear-queues"), ("retry", "retry-failed"), ("forget", "forget-failed"), ("move", "change-jobs")],
)
async def test_each_verb_has_its_right_on_the_server(
    settings: Settings, driver: DatabaseDriver, path: str, right: str
) -> None:
    fields = {"connection": "database", "queue": "mail", "to": "slow" if path == "move" else ""}
    for may, status in (({"see", right}, 303), ({"see", "cancel-jobs", "stop-operations"}, 403)):
        app = dashboard(lambda _, may=may: Viewer("Bert", may), settings=settings)
        async with browser(mounted(app)) as client:
            assert (await client.post(f"{BASE}/operations/{path}", data=fields)).status_code == status
    assert len(await driver.operations.latest(5)) == 1


async def test_what_is_wrong_is_said(admin: httpx.AsyncClient) -> None:
    for query in ("verb=empty", "verb=retry&since=soon", "verb=cancel&queue=no+queue", "verb=retry&name=" + "n" * 300):
        assert (await admin.get(f"{BASE}/operations/new?{query}")).status_code == 400
    assert "needs the queue" in told(await admin.get(f"{BASE}/operations/new?verb=move"))


async def test_actions_of_viewers_are_recorded(driver: DatabaseDriver, admin: httpx.AsyncClient) -> None:
    [job] = jobs = envelopes(1, queue="mail")
    await driver.jobs.insert([*jobs, *envelopes(4, queue="old")])
    await fail(driver, *envelopes(2))
    connection = {"connection": "database"}
    for path, fields in (
        (f"/jobs/{job.id}/change", {"queue": "later"}),
        (f"/jobs/{job.id}/cancel", {}),
        ("/queues/old/clear", {}),
        ("/failures/retry", {"error": "ConnectionRefusedError"}),
        ("/limits/set", {"name": "mailgun", "value": "5/m"}),
        ("/queues/old/clear", {}),
        ("/queues/old/pause", {}),
        ("/queues/old/resume", {}),
    ):
        response = await admin.post(BASE + path, data=connection | fields)
        assert response.status_code == 303, told(response)
    entries = [(entry.by, entry.action, entry.count) for entry in reversed(await driver.audit.latest(10))]
    assert entries == [
        ("Ada", "change", 1),
        ("Ada", "cancel", 1),
        ("Ada", "clear", 4),
        ("Ada", "retry", 2),
        ("Ada", "limits set", 1),
        ("Ada", "pause", 1),
        ("Ada", "resume", 1),
    ]
    assert "limits set" in told(await admin.get(f"{BASE}/operations"))
