"""What viewers change: each action by its form, on every database, and who may not."""

from __future__ import annotations

import base64
import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

import outbox
import outbox.web
from outbox.drivers.database import DatabaseDriver
from outbox.drivers.pauses import PauseKind
from outbox.drivers.values import JobState
from outbox.encrypted_jobs import encrypt_job, open_payload
from outbox.encryption import keyring
from outbox.envelope import serialize
from outbox.ids import new_job_id
from outbox.policies.rate_limits import Terms
from outbox.settings import Settings
from outbox.settlement import Failure, Settlement
from outbox.web import Viewer, dashboard
from outbox.web.routes import DashboardRoute
from tests.conformance.jobs import FAILURE, claim_one, envelope, envelopes
from tests.support.commands import break_payload, fail
from tests.support.dashboards import BASE, Letter, browser, fill, mounted, signed_in, told, worker

KEY = base64.urlsafe_b64encode(b"k" * 32).decode()


class Step(outbox.Job):
    name = "tests.Step"
    queue = "steps"
    ordering_key = "customer"

    customer: int

    async def handle(self) -> None: ...


class Parcel(outbox.Job):
    name = "tests.Parcel"

    number: int

    async def handle(self) -> None: ...


class Bill(outbox.Job):
    name = "tests.Bill"
    version = 2

    cents: int

    @outbox.upgrade(1)  # version 1 had whole units
    @staticmethod
    def in_cents(payload: dict[str, Any]) -> dict[str, Any]:
        return {"cents": 100 * payload["units"]}

    async def handle(self) -> None: ...


async def act(client: httpx.AsyncClient, path: str, **fields: Any) -> str:
    """Send a form; what the next page says about it."""
    response = await client.post(BASE + path, data={"connection": "database"} | fields)
    assert response.status_code == 303, told(response)
    page = await client.get(response.headers["location"])
    assert page.status_code in (200, 404), told(page)
    again = await client.get(response.headers["location"])
    assert "notice done" in page.text
    assert "notice done" not in again.text, "it is said once"
    return told(page)


async def refused(client: httpx.AsyncClient, path: str, status: int, **fields: Any) -> str:
    response = await client.post(BASE + path, data={"connection": "database"} | fields)
    assert response.status_code == status, told(response)
    assert "Traceback (most" not in response.text
    return told(response)


# --- queues and jobs


async def test_a_queue_is_paused_resumed_and_cleared(driver: DatabaseDriver, admin: httpx.AsyncClient) -> None:
    await driver.jobs.insert(envelopes(3, queue="mail"))
    assert "mail is paused." in await act(admin, "/queues/mail/pause")
    assert await driver.jobs.claim(["mail"], 1, 30) == []
    assert "was paused already" in await act(admin, "/queues/mail/pause")
    assert "mail is resumed." in await act(admin, "/queues/mail/resume")
    assert "was not paused" in await act(admin, "/queues/mail/resume")
    assert "Removed 3 jobs" in await act(admin, "/queues/mail/clear")
    assert await driver.jobs.list_jobs() == []


async def test_a_job_is_cancelled_once(driver: DatabaseDriver, admin: httpx.AsyncClient) -> None:
    job = envelope()
    await driver.jobs.insert([job])
    assert f"Cancelled the job {job.id}" in await act(admin, f"/jobs/{job.id}/cancel")
    assert await driver.jobs.get(job.id) is None
    assert "no live job" in await refused(admin, f"/jobs/{job.id}/cancel", 404)


async def test_a_waiting_job_is_changed_and_a_running_one_is_not(
    driver: DatabaseDriver, admin: httpx.AsyncClient
) -> None:
    job = envelope(delay=3_600)
    await driver.jobs.insert([job, envelope(queue="running")])
    at = f"/jobs/{job.id}"
    assert "another time" in await act(admin, f"{at}/reschedule", when="2h")
    assert "another time" in await act(admin, f"{at}/reschedule", when="2031-03-02T07:00+01:00")
    waiting = await driver.jobs.get(job.id)
    assert waiting is not None
    assert f"{waiting.available_at:%Y-%m-%dT%H:%M}" == "2031-03-02T06:00"
    assert "was changed" in await act(admin, f"{at}/change", queue="other", priority="1")
    assert "as soon as a worker is free" in await act(admin, f"{at}/run")
    claim = await claim_one(driver, "other")
    assert (claim.fence.job_id, claim.priority) == (job.id, 1)
    for verb, fields in (("run", {}), ("reschedule", {"when": "5m"}), ("change", {"priority": "2"})):
        assert "runs" in await refused(admin, f"{at}/{verb}", 409, **fields)
        await refused(admin, f"/jobs/{new_job_id()}/{verb}", 404, **fields)
    assert "is no time such as" in await refused(admin, f"{at}/reschedule", 400, when="soon")
    assert "ten years" in await refused(admin, f"{at}/reschedule", 400, when="2999-01-01")
    assert "nothing is to change" in await refused(admin, f"{at}/change", 400)


async def test_a_copy_is_checked_by_the_class(driver: DatabaseDriver, admin: httpx.AsyncClient) -> None:
    job = envelope(payload='{"number": 7}')._replace(name=Parcel.name, headers='{"max_tries": 7}')
    await driver.jobs.insert([job])
    form = await admin.get(f"{BASE}/jobs/{job.id}/copy")
    assert "number" in form.text
    said = await refused(admin, f"/jobs/{job.id}/copy", 200, payload='{"number": "many"}', queue="mail")
    assert "number" in said
    assert await refused(admin, f"/jobs/{job.id}/copy", 200, payload="no json")
    assert "a priority is" in await refused(admin, f"/jobs/{job.id}/copy", 200, payload='{"number": 8}', priority="x")
    assert len(await driver.jobs.list_jobs()) == 1
    typed = {"payload": "{}", "queue": "mail", "priority": "2", "delay": "5m", "connection": "database"}
    again = await admin.post(f"{BASE}/jobs/{job.id}/copy", data=typed)
    for field in ('name="queue" value="mail"', 'name="priority" value="2"', 'name="delay" value="5m"'):
        assert field in again.text, "what was typed stays"
    await act(admin, f"/jobs/{job.id}/copy", payload='{"number": 8}', queue="mail", priority="2", delay="5m")
    [copy] = await driver.jobs.list_jobs("mail")
    assert json.loads(copy.payload) == {"number": 8}
    assert (copy.priority, copy.state) == (2, JobState.DELAYED)
    assert json.loads(copy.headers)["max_tries"] == 7


@pytest.mark.parametrize("edited", [None, '{"units": 7}'])
async def test_the_payload_of_a_copy_has_the_version_of_its_job(
    driver: DatabaseDriver, admin: httpx.AsyncClient, edited: str | None
) -> None:
    old = envelope(payload='{"units": 7}')._replace(name=Bill.name)
    new = envelope(payload='{"cents": 5}')._replace(name=Bill.name, headers='{"version": 2}')
    newer = envelope(payload='{"francs": 5}')._replace(name=Bill.name, headers='{"version": 3}')
    await driver.jobs.insert([old, new, newer])
    await act(admin, f"/jobs/{old.id}/copy", queue="copies", **({} if edited is None else {"payload": edited}))
    await act(admin, f"/jobs/{new.id}/copy", queue="copies")
    assert "the payload has version 3" in await refused(admin, f"/jobs/{newer.id}/copy", 200, queue="copies")
    copies = await driver.jobs.list_jobs("copies")
    assert [json.loads(each.payload) for each in copies] == [{"cents": 700}, {"cents": 5}]
    assert {json.loads(each.headers)["version"] for each in copies} == {2}


@pytest.mark.parametrize("key", ["", KEY], ids=["without its key", "with its key"])
async def test_a_copy_of_an_encrypted_job_is_encrypted_anew(
    migrated_url: str, driver: DatabaseDriver, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    """Also where it has failed, and the failed one is forgotten. Without the key, the reason is said."""
    keys, parcel = keyring((KEY,)), serialize(Parcel(number=7))
    job = encrypt_job(parcel, keys, "database")
    wrong = encrypt_job(parcel._replace(id=new_job_id(), payload='{"number": "secret"}'), keys, "database")
    await driver.jobs.insert([job, wrong])
    claims = await driver.jobs.claim(["default"], 2, 30)
    await driver.jobs.settle([Settlement.failed(claim.fence, FAILURE) for claim in claims])
    monkeypatch.delenv("OUTBOX_ENCRYPTION_KEYS", raising=False)
    settings = Settings(database_url=migrated_url, encryption_keys=(key,) if key else ())
    async with browser(mounted(dashboard(signed_in(), settings=settings))) as admin:
        form = await admin.get(f"{BASE}/jobs/{job.id}/copy")
        assert "textarea" not in form.text
        assert "cannot be edited here" in form.text
        if not key:
            said = await refused(admin, f"/jobs/{job.id}/copy", 200, forget="yes")
            assert "a copy needs its key in the process of the dashboard: it was encrypted with the key" in said
            assert await driver.failed.get(job.id) is not None
            return
        said = await refused(admin, f"/jobs/{wrong.id}/copy", 200)
        assert "tests.Parcel refuses the payload, which is encrypted" in said
        assert "secret" not in said
        await act(admin, f"/jobs/{job.id}/copy", payload='{"number": 8}', forget="yes")
    [copied] = await driver.jobs.list_jobs("default")
    assert copied.payload != job.payload
    payload = open_payload(keys, copied.payload, copied.headers, copied.name, copied.id, "database")
    assert json.loads(payload) == {"number": 7}, "what a form says of it is not taken"
    assert await driver.failed.get(job.id) is None


async def test_the_payload_of_a_copy_stays_hidden_where_parts_are_redacted(
    driver: DatabaseDriver, admin: httpx.AsyncClient
) -> None:
    jobs = await fill(driver)
    form = await admin.get(f"{BASE}/jobs/{jobs.failed}/copy")
    assert "secret@example.org" not in form.text
    assert "<textarea" not in form.text
    said = await act(
        admin, f"/jobs/{jobs.failed}/copy", payload='{"email": "[redacted]"}', queue="copies", forget="yes"
    )
    assert "is forgotten" in said
    [copy] = await driver.jobs.list_jobs("copies")
    assert json.loads(copy.payload)["email"] == "secret@example.org"
    assert await driver.failed.get(jobs.failed) is None


async def test_a_copy_of_an_unknown_class_says_what_to_do(driver: DatabaseDriver, admin: httpx.AsyncClient) -> None:
    job = envelope()
    await driver.jobs.insert([job])
    assert "OUTBOX_JOBS" in await refused(admin, f"/jobs/{job.id}/copy", 200, payload="{}")


# --- workers


async def test_workers_are_asked_to_be_quiet_to_go_on_and_to_stop(
    driver: DatabaseDriver, admin: httpx.AsyncClient
) -> None:
    status = worker()
    await driver.workers.heartbeat(status)
    at = f"/workers/{status.id.hex()}"
    for verb in ("quiet", "resume", "stop"):
        await act(admin, f"{at}/{verb}")
        assert await driver.workers.heartbeat(status) == verb
    assert "asked to be quiet" in await act(admin, f"{at}/quiet")
    await driver.workers.heartbeat(replace(status, state="quiet", memory=2 * 1024**2, version="0.9.1"))
    await driver.workers.heartbeat(replace(status, state="quiet", memory=2 * 1024**2, version="0.9.1"))
    page = told(await admin.get(f"{BASE}/workers"))
    for each in ("Resume", "2 MiB", "0.9.1"):
        assert each in page
    await driver.workers.deregister(status.id)
    assert "no such worker" in await refused(admin, f"{at}/stop", 404)
    assert "no id of a worker" in await refused(admin, "/workers/x/stop", 400)


# --- failures


async def test_one_failed_job_is_retried_or_forgotten(driver: DatabaseDriver, admin: httpx.AsyncClient) -> None:
    first, second = (claim.fence.job_id for claim in await fail(driver, *envelopes(2)))
    assert "was put back" in await act(admin, f"/failures/{first}/retry")
    assert await driver.jobs.get(first) is not None
    assert "Forgot" in await act(admin, f"/failures/{second}/forget")
    assert await driver.failed.get(second) is None
    for verb in ("retry", "forget"):
        assert "no failed job" in await refused(admin, f"/failures/{second}/{verb}", 404)


async def test_a_group_is_retried_and_others_stay(driver: DatabaseDriver, admin: httpx.AsyncClient) -> None:
    await fail(driver, *envelopes(25, queue="mail"))
    [other] = await fail(driver, envelope(queue="other"))
    group = {"queue": "mail", "name": "tests.Job", "error": "ConnectionRefusedError"}
    assert "Retried 25 failed jobs" in await act(admin, "/failures/retry", **group)
    assert len(await driver.jobs.list_jobs("mail")) == 25
    assert await driver.failed.get(other.fence.job_id) is not None
    assert "Forgot 1 failed job." in await act(admin, "/failures/forget", queue="other")


async def test_a_group_of_one_problem_is_retried_and_forgotten_from_its_page(
    driver: DatabaseDriver, admin: httpx.AsyncClient
) -> None:
    for number in (1, 2):
        await fail(driver, *envelopes(2), failure=Failure("LookupError", f"no order {number}", ""))
    await fail(driver, *envelopes(3), failure=Failure("LookupError", "no customer 7", ""))
    customers, orders = sorted(await driver.failed.groups(), key=lambda group: group.count)
    listed = await admin.get(f"{BASE}/failures")
    assert "4 failures in the last 24 hours, 4 in the last one" in listed.text
    page = f"/failures/jobs?connection=database&name=tests.Job&group={orders.fingerprint}"
    assert page.replace("&", "&amp;") in listed.text
    shown = await admin.get(BASE + page)
    assert "Failed jobs 4" in told(shown)
    assert shown.text.count('class="id"') == 4
    group = {"connection": "database", "name": "tests.Job", "group": orders.fingerprint}
    assert "Retried 4 failed jobs" in await act(admin, "/failures/retry", **group)
    assert "Forgot 3 failed jobs" in await act(admin, "/failures/forget", **group | {"group": customers.fingerprint})
    assert await driver.failed.page() == []
    assert "16 hexadecimal digits" in await refused(admin, "/failures/retry", 400, group="LookupError")


async def test_what_cannot_be_retried_is_said(driver: DatabaseDriver, admin: httpx.AsyncClient) -> None:
    [claim] = await fail(driver, envelope())
    await break_payload(driver, claim, "{")
    assert "1 stay" in await act(admin, "/failures/retry")
    assert "not JSON" in await refused(admin, f"/failures/{claim.fence.job_id}/retry", 400)


# --- keys, limits, schedules, batches


async def test_limits_are_set_and_reset(driver: DatabaseDriver, admin: httpx.AsyncClient) -> None:
    assert "mailgun is 5/m." in await act(admin, "/limits/set", name="mailgun", value="5/m")
    assert await driver.limits.terms("mailgun") == Terms(name="mailgun", rate="5/m")
    assert "At most 3 jobs" in await act(admin, "/limits/set", name="tests.Job", value="3")
    assert "as its jobs declare" in await act(admin, "/limits/reset", name="mailgun")
    assert "was not set" in await act(admin, "/limits/reset", name="mailgun")
    for value in ("often", "0", "99999999", "-1", "5/century"):
        await refused(admin, "/limits/set", 400, name="mailgun", value=value)
    await refused(admin, "/limits/set", 400, name="\N{SNOWMAN}", value="5/m")


async def test_schedules_are_paused_run_and_backfilled(
    driver: DatabaseDriver, admin: httpx.AsyncClient, settings: Settings
) -> None:
    async with outbox.Outbox(settings):
        await outbox.schedules.add("report", "0 7 * * *", Letter(email="a@b.c"), tz="Europe/Berlin")
    assert "At 07:00" in told(await admin.get(f"{BASE}/schedules"))
    assert "is paused" in await act(admin, "/schedules/pause", name="report")
    stored = await driver.schedules.get("report")
    assert stored is not None
    assert stored.paused_at is not None
    assert "is resumed" in await act(admin, "/schedules/resume", name="report")
    assert "Dispatched" in await act(admin, "/schedules/run", name="report")
    period = {"name": "report", "from": "2026-01-01", "until": "2026-01-03T12:00"}
    assert "Dispatched 3 jobs" in await act(admin, "/schedules/backfill", **period)
    assert len(await driver.jobs.list_jobs("mail")) == 4
    assert "is no time" in await refused(admin, "/schedules/backfill", 400, name="report", **{"from": "then"})
    assert "more than 1,000" in await refused(
        admin, "/schedules/backfill", 400, name="report", **{"from": "2001-01-01"}
    )
    for first, said in (("0001-01-01", "is no time"), ("0001-01-01T00:00Z", "more than 1,000")):
        assert said in await refused(admin, "/schedules/backfill", 400, name="report", **{"from": first})
    future = {"name": "report", "from": "9999-12-31T23:59:59+00:00"}
    assert "Dispatched 0 jobs" in await act(admin, "/schedules/backfill", **future)
    for verb in ("run", "backfill"):
        await refused(
            admin, f"/schedules/{verb}", 404, name="none", **({"from": "2026-01-01"} if verb[0] == "b" else {})
        )


async def test_batches_are_retried_and_cancelled(
    driver: DatabaseDriver, admin: httpx.AsyncClient, settings: Settings
) -> None:
    async with outbox.Outbox(settings):
        batch = await outbox.dispatch_batch([Letter(email="a@b.c") for _ in range(3)], name="letters")
    assert "letters" in told(await admin.get(f"{BASE}/batches"))
    failed = await fail_next(driver, "mail")
    shown = told(await admin.get(f"{BASE}/batches/{batch}"))
    assert str(failed) in shown
    assert "letters" in shown
    assert "Retried 1 failed job" in await act(admin, f"/batches/{batch}/retry")
    assert "The batch is cancelled" in await act(admin, f"/batches/{batch}/cancel")
    assert await driver.jobs.list_jobs() == []
    assert "was cancelled already" in await act(admin, f"/batches/{batch}/cancel")
    for verb in ("retry", "cancel"):
        await refused(admin, f"/batches/{new_job_id()}/{verb}", 404)


async def fail_next(driver: DatabaseDriver, queue: str) -> outbox.JobId:
    claim = await claim_one(driver, queue)
    await driver.jobs.settle([Settlement.failed(claim.fence, FAILURE).leaving(claim.policies or 0, claim.headers)])
    return claim.fence.job_id


@pytest.mark.parametrize("verb", ["retry", "skip"])
async def test_a_key_that_a_failed_job_blocks_goes_on(
    driver: DatabaseDriver, admin: httpx.AsyncClient, settings: Settings, verb: str
) -> None:
    async with outbox.Outbox(settings):
        first, second = await outbox.dispatch_many([Step(customer=7), Step(customer=7)])
    assert "No key is blocked" in told(await admin.get(f"{BASE}/keys"))
    assert await fail_next(driver, "steps") == first
    assert await driver.jobs.claim(["steps"], 10, 30) == []
    assert "customer:7" in told(await admin.get(f"{BASE}/keys"))
    assert "1 key is blocked by failed jobs" in told(await admin.get(f"{BASE}/"))
    assert "parked" in told(await admin.get(f"{BASE}/jobs/{second}"))
    await act(admin, f"/keys/{verb}", id=first)
    assert (await claim_one(driver, "steps")).fence.job_id == (first if verb == "retry" else second)
    assert "No key is blocked" in told(await admin.get(f"{BASE}/keys"))
    await refused(admin, f"/keys/{verb}", 404, id=first)
    await refused(admin, f"/keys/{verb}", 400, id="x")


# --- who may not


async def test_a_key_is_paused_and_resumed(
    driver: DatabaseDriver, admin: httpx.AsyncClient, settings: Settings
) -> None:
    said = await act(admin, "/keys/pause", key="customer:4711", reason="a dispute", **{"for": "2h"})
    assert "customer:4711 is paused." in said
    [pause] = await driver.pauses.all()
    assert (pause.target, pause.by, pause.reason) == ((PauseKind.KEY, "customer:4711"), "Ada", "a dispute")
    page = told(await admin.get(f"{BASE}/keys"))
    assert "customer:4711" in page
    assert "a dispute" in page
    async with browser(mounted(dashboard(lambda _: Viewer("Bo", ["see", "pause-queues"]), settings=settings))) as blind:
        seen = await blind.get(f"{BASE}/keys")
        assert "customer:4711" not in seen.text
    assert "customer:4711 is resumed." in await act(admin, "/keys/resume", key="customer:4711")
    assert "customer:4711 was not paused." in await act(admin, "/keys/resume", key="customer:4711")
    assert await driver.pauses.all() == []
    assert (await admin.post(f"{BASE}/keys/pause", data={"connection": "database"})).status_code == 400


async def test_an_action_from_another_site_changes_nothing(driver: DatabaseDriver, settings: Settings) -> None:
    await driver.jobs.insert(envelopes(3, queue="mail"))
    app = dashboard(signed_in(), settings=settings)
    async with browser(mounted(app)) as client:
        for headers in (
            {"sec-fetch-site": "cross-site"},
            {"sec-fetch-site": "same-site"},
            {"sec-fetch-site": ""},
        ):
            response = await client.post(f"{BASE}/queues/mail/clear", data={}, headers=headers)
            assert response.status_code == 403, headers
        del client.headers["sec-fetch-site"]
        for headers in ({}, {"origin": "http://evil.example"}, {"origin": "null"}):
            response = await client.post(f"{BASE}/queues/mail/clear", data={}, headers=headers)
            assert response.status_code == 403, headers
        assert (await client.get(f"{BASE}/queues/mail/clear")).status_code == 405
        assert len(await driver.jobs.list_jobs()) == 3
        response = await client.post(f"{BASE}/queues/mail/clear", data={}, headers={"origin": "http://testserver"})
        assert response.status_code == 303


async def test_buttons_are_shown_to_those_who_may(driver: DatabaseDriver, settings: Settings) -> None:
    jobs = await fill(driver)
    for may, forms in (("viewer", 0), ("operator", 1), ("admin", 2)):
        async with browser(mounted(dashboard(signed_in(may), settings=settings))) as client:
            page = await client.get(f"{BASE}/queues/mail")
            assert page.text.count('method="post"') == forms, may
            assert ("Forget" in (await client.get(f"{BASE}/jobs/{jobs.failed}")).text) == (may == "admin")


async def test_bad_forms_are_refused(admin: httpx.AsyncClient) -> None:
    assert "there is no" in await refused(admin, "/queues/mail/pause", 400, colour="red")
    assert "there is no connection" in await refused(admin, "/queues/mail/pause", 400, connection="other")
    assert "a queue's name" in await refused(admin, "/queues/UPPER/pause", 400)
    assert "a queue's name" in await refused(admin, "/queues/%3Eredis/clear", 400)
    assert "at most 500" in await refused(admin, "/failures/retry", 400, name="x" * 501)
    large = await admin.post(f"{BASE}/failures/retry", content=b"name=" + b"x" * (3 * 1024 * 1024))
    assert large.status_code == 413


async def test_each_action_has_a_form_on_some_page() -> None:
    """A route without one would be reached by nobody."""
    templates = "".join(path.read_text() for path in (Path(outbox.web.__file__).parent / "templates").glob("*.html"))
    for route in dashboard(lambda _: Viewer("Ada")).routes:
        if isinstance(route, DashboardRoute) and "POST" in (route.methods or ()):
            assert f"/{route.path.rpartition('/')[2]}" in templates, route.path


async def test_actions_are_logged(
    driver: DatabaseDriver, admin: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "outbox.web"):
        await act(admin, "/queues/mail/pause")
    assert "Ada: /queues/mail/pause connection=database: mail is paused." in caplog.text
