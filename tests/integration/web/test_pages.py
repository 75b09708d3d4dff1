"""What the pages say, on every store, with jobs and without, and whatever they are asked."""

from __future__ import annotations

import asyncio
import json
import re
from urllib.parse import urlencode

import httpx
import pytest

from outbox import Job
from outbox.drivers.database import DatabaseDriver
from outbox.drivers.redis import RedisDriver
from outbox.drivers.values import StoreFacts
from outbox.errors import ConfigurationError, RequestRefused
from outbox.ids import JobId
from outbox.settings import Settings
from outbox.settlement import KeepFinished, Settlement
from outbox.web import Viewer, dashboard
from tests.conformance.jobs import envelope, envelopes
from tests.support.commands import execute, fail
from tests.support.dashboards import BASE, MARKUP, Letter, browser, fill, mounted, signed_in, told, worker

PAGES = (
    "/",
    "/queues",
    "/jobs",
    "/failures",
    "/failures/jobs",
    "/classes",
    "/workers",
    "/schedules",
    "/keys",
    "/batches",
    "/operations",
    "/operations/new?verb=cancel",
    "/health",
)


NO_JOB = JobId("01a20bf1-7bb8-748b-ae11-e81956fc3160")


async def read(client: httpx.AsyncClient, path: str, status: int = 200) -> httpx.Response:
    response = await client.get(BASE + path)
    assert response.status_code == status, f"{path}: {told(response)}"
    assert "Traceback (most" not in response.text
    return response


# --- what they say


async def test_empty_pages_say_what_to_do_next(admin: httpx.AsyncClient) -> None:
    for path in PAGES:
        await read(admin, path)
    assert "Dispatch one" in told(await read(admin, "/"))
    assert "python -m outbox.work" in told(await read(admin, "/workers"))
    assert "after their last attempt" in told(await read(admin, "/failures"))
    assert "@schedule" in told(await read(admin, "/schedules"))
    assert "dispatch_batch" in told(await read(admin, "/batches"))
    assert 'rate = "100/m"' in told(await read(admin, "/keys"))


async def test_the_pages_show_what_is_there(driver: DatabaseDriver, admin: httpx.AsyncClient) -> None:
    jobs = await fill(driver)
    overview = told(await read(admin, "/"))
    assert "Ready 1" in overview
    assert "Running 1" in overview
    assert "Failed in the last hour 1" in overview
    assert "mail" in told(await read(admin, "/queues"))
    queue = told(await read(admin, "/queues/mail"))
    assert "sorter" in queue
    assert str(jobs.ready) in queue
    listed = told(await read(admin, "/jobs"))
    assert all(str(each) in listed for each in (jobs.ready, jobs.delayed, jobs.running, jobs.retrying))
    assert str(jobs.failed) not in listed
    running = told(await read(admin, "/jobs?state=running&queue=mail"))
    assert str(jobs.running) in running
    assert str(jobs.ready) not in running
    assert "No such jobs" in told(await read(admin, "/jobs?state=running&queue=other"))
    assert "SMTPError" in told(await read(admin, "/failures"))
    assert str(jobs.failed) in told(await read(admin, "/failures/jobs?name=tests.Letter&error=SMTPError"))
    workers = told(await read(admin, "/workers"))
    assert "sorter" in workers
    assert str(jobs.running) in workers


async def test_the_life_of_a_job(driver: DatabaseDriver, admin: httpx.AsyncClient) -> None:
    jobs = await fill(driver)
    assert "attempt 1 runs on sorter" in told(await read(admin, f"/jobs/{jobs.running}"))
    assert "an attempt failed" in told(await read(admin, f"/jobs/{jobs.retrying}"))
    assert "delayed until in 59m" in told(await read(admin, f"/jobs/{jobs.delayed}"))
    failed = told(await read(admin, f"/jobs/{jobs.failed}"))
    assert "SMTPError" in failed
    assert "no such address" in failed


class Limited(Job):
    name = "tests.pages.Limited"
    max_snoozes = 2
    keep_for = 60

    async def handle(self) -> None: ...


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_a_job_says_the_limits_of_its_class_and_its_dispatch(
    driver: DatabaseDriver, admin: httpx.AsyncClient
) -> None:
    job = envelope()._replace(name=Limited.name, headers='{"expires_after": 30.0}')
    await driver.jobs.insert([job])
    page = told(await read(admin, f"/jobs/{job.id}"))
    for line in (
        "at most 2 snoozes; 0 so far",
        "failed if no attempt has begun 30 s after its dispatch",
        "kept for 60 s after its end",
    ):
        assert line in page


async def test_a_job_is_found_by_its_id(driver: DatabaseDriver, admin: httpx.AsyncClient) -> None:
    jobs = await fill(driver)
    response = await admin.get(f"{BASE}/jobs?id={jobs.ready}")
    assert response.status_code == 303
    assert response.headers["location"] == f"{BASE}/jobs/{jobs.ready}"


async def test_a_job_links_to_the_trace_of_its_dispatch(driver: DatabaseDriver, settings: Settings) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    traced = envelope()._replace(headers=json.dumps({"trace": {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}}))
    other = envelope()._replace(headers=json.dumps({"trace": {"traceparent": '"><script>'}}))
    await driver.jobs.insert([traced, other])
    app = dashboard(signed_in(), settings=settings, trace_url="https://traces.example/{trace_id}")
    async with browser(mounted(app)) as client:
        assert f'href="https://traces.example/{trace}"' in (await read(client, f"/jobs/{traced.id}")).text
        assert "traces.example" not in (await read(client, f"/jobs/{other.id}")).text
    for url in ("javascript:{trace_id}", "https://traces.example"):
        with pytest.raises(ConfigurationError, match="trace_url is an address"):
            dashboard(signed_in(), settings=settings, trace_url=url)


async def test_what_needs_attention(driver: DatabaseDriver, admin: httpx.AsyncClient) -> None:
    assert "Nothing needs attention" in told(await read(admin, "/"))
    await driver.jobs.insert([envelope(queue="mail"), envelope(queue="other")])
    await driver.queues.pause("mail")
    await driver.workers.heartbeat(worker())
    await execute(driver, "UPDATE queue_workers SET seen_at = started_at, started_at = seen_at")
    said = told(await read(admin, "/"))
    assert "the queue mail is paused" in said
    assert "no worker drains the queue other" in said


async def test_several_connections_on_one_page(migrated_url: str, redis_url: str, driver: DatabaseDriver) -> None:
    redis = RedisDriver(redis_url)
    await redis.jobs.insert([envelope(queue="fast")])
    await driver.jobs.insert([envelope(queue="slow")])
    settings = Settings(database_url=migrated_url, redis_url=redis_url)
    async with browser(mounted(dashboard(signed_in(), settings=settings))) as client:
        queues = told(await read(client, "/queues"))
        assert "fast" in queues
        assert "slow" in queues
        assert "fast" in told(await read(client, "/jobs?connection=redis"))
        for path in PAGES:
            await read(client, path)
        assert "there is no connection" in told(await read(client, "/jobs?connection=other", 400))
    await redis.close()


async def test_one_connection_that_does_not_answer_hides_no_other(migrated_url: str, driver: DatabaseDriver) -> None:
    await driver.jobs.insert([envelope(queue="slow")])
    settings = Settings(database_url=migrated_url, redis_url="redis://127.0.0.1:1/0")
    async with browser(mounted(dashboard(signed_in(), settings=settings, time_limit=2))) as client:
        said = told(await read(client, "/"))
        assert "slow" in said
        assert "redis" in said
        assert "is left out" in told(await read(client, "/queues"))
        await read(client, "/jobs?connection=redis", 503)


@pytest.mark.parametrize("backend", ["sqlite", "mysql"], indirect=True)
async def test_health_tells_sizes_and_settings(
    driver: DatabaseDriver, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    await driver.jobs.insert(envelopes(5))
    shown = settings.model_copy(update={"redis_url": "redis://:hunter2@cache:6379/0"})

    async def page_of_health() -> httpx.Response:
        async with browser(mounted(dashboard(signed_in(), settings=shown, connections=["database"]))) as client:
            return await read(client, "/health")

    while "took longer than" in told(page := await page_of_health()):
        await asyncio.sleep(0.1)
    assert "Tables of database" in told(page)
    assert ("the whole file" if "sqlite" in settings.database_url else "queue_jobs") in told(page)
    assert "redis://:***@cache:6379/0" in told(page)
    assert "hunter2" not in page.text
    monkeypatch.setenv("OUTBOX_LEASE", "soon")
    async with browser(mounted(dashboard(signed_in(), settings=settings))) as client:
        assert "lease: " in told(await read(client, "/health")), "a finding says what is wrong"


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_health_says_what_could_not_be_read(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(_: DatabaseDriver) -> StoreFacts:
        raise RequestRefused("a reading took longer than 2 s and was stopped")

    monkeypatch.setattr(DatabaseDriver, "facts", refuse)
    async with browser(mounted(dashboard(signed_in(), settings=settings))) as client:
        assert "database is left out: a reading took longer than 2 s" in told(await read(client, "/health"))


# --- pages


async def test_pages_go_on_by_keys_and_show_each_job_once(driver: DatabaseDriver, admin: httpx.AsyncClient) -> None:
    expected = envelopes(25, queue="mail") + envelopes(25, queue="other")
    await driver.jobs.insert(expected)
    seen = await _walk(admin, f"{BASE}/jobs?limit=10")
    assert sorted(seen) == sorted(str(job.id) for job in expected)


async def test_pages_of_failed_jobs_show_each_once(driver: DatabaseDriver, admin: httpx.AsyncClient) -> None:
    claims = await fail(driver, *envelopes(25))
    seen = await _walk(admin, f"{BASE}/failures/jobs?limit=10")
    assert sorted(seen) == sorted(str(claim.fence.job_id) for claim in claims)


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
@pytest.mark.sqlite
async def test_finished_jobs_that_are_kept_are_listed_and_shown(
    driver: DatabaseDriver, admin: httpx.AsyncClient, settings: Settings
) -> None:
    assert "keep_for" in told(await read(admin, "/jobs?state=finished"))
    await driver.jobs.insert(envelopes(25, queue="mail"))
    claims = await driver.jobs.claim(["mail"], 25, 30)
    result = '{"email": "secret@example.org", "sent": 7}'
    for claim in claims:
        kept = (
            claim.fence.job_id,
            "mail",
            Letter.name,
            5,
            '{"text": "hello"}',
            "{}",
            2,
            60.0,
            result,
            (0.5, "half"),
            0.25,
        )
        await driver.jobs.settle([Settlement.completed(claim.fence, (KeepFinished(*kept),))])
    seen = await _walk(admin, f"{BASE}/jobs?state=finished&limit=10")
    assert seen == [str(claim.fence.job_id) for claim in sorted(claims, key=lambda each: each.fence.job_id)[::-1]]
    assert "No such jobs" in told(await read(admin, "/jobs?state=finished&queue=other"))
    page = await read(admin, f"/jobs/{seen[0]}")
    for said in ("finished", '"sent": 7', '"text": "hello"', "50%, half", "250 ms"):
        assert said in told(page), said
    assert "secret@example.org" not in page.text + (await read(admin, "/jobs?state=finished")).text
    async with browser(mounted(dashboard(lambda _: Viewer("Bo", ["see"]), settings=settings))) as blind:
        assert "half" not in told(await read(blind, f"/jobs/{seen[0]}"))
        assert "sent" not in told(await read(blind, "/jobs?state=finished"))


async def _walk(client: httpx.AsyncClient, address: str) -> list[str]:
    seen: list[str] = []
    following: str | None = address
    while following is not None:
        response = await client.get(following)
        assert response.status_code == 200
        seen += re.findall(r'<th scope="row">\s*<a class="id" href="[^"]*/jobs/([0-9a-f-]{36})">', response.text)
        link = re.search(r'<a rel="next" href="([^"]*)"', response.text)
        following = None if link is None else link[1].replace("&amp;", "&")
    return seen


# --- bad input


@pytest.mark.sqlite
@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("/jobs/not-an-id", 400, "is no id"),
        ("/jobs?id=not-an-id", 400, "is no id"),
        (f"/jobs/{NO_JOB}", 404, "there is no job"),
        ("/jobs?state=asleep", 400, "a state is one of ready"),
        ("/jobs?colour=red", 400, "there is no filter 'colour'"),
        ("/jobs?queue=a&queue=b", 400, "given twice"),
        ("/jobs?queue=UPPER", 400, "a queue's name"),
        ("/jobs?limit=0", 400, "a whole number from 1 to 200"),
        ("/jobs?limit=201", 400, "a whole number from 1 to 200"),
        ("/jobs?limit=1e9", 400, "a whole number from 1 to 200"),
        ("/jobs?limit=\N{ARABIC-INDIC DIGIT ONE}", 400, "a whole number"),
        ("/jobs?after=nowhere", 400, "is no place"),
        ("/jobs?state=finished&after=nowhere", 400, "is no place"),
        (f"/jobs?after=mail:5:99999999999999999999999999:{NO_JOB}", 400, "is no place"),
        (f"/jobs?after=mail:5:{253402300799000000}:{NO_JOB}", 200, "No jobs"),
        ("/jobs?name=" + "x" * 501, 400, "at most 500"),
        ("/jobs?name=" + "x" * 5_000, 400, "at most 4,096"),
        ("/jobs?name=%ff", 400, "cannot be read"),
        ("/jobs?" + urlencode([(f"x{n}", "1") for n in range(30)]), 400, "more than 20"),
        ("/jobs?connection=elsewhere", 400, "there is no connection"),
        ("/failures?since=soon", 400, "a time such as 30m"),
        ("/failures?since=99999w", 400, "a time such as 30m"),
        (f"/failures/jobs?before={NO_JOB}", 404, "begin again with the first page"),
        ("/queues/UPPER", 400, "a queue's name"),
        ("/queues/nobody-uses-it", 200, "No worker drains this queue"),
        ("/schedules/one", 400, "name is missing"),
        ("/schedules/one?name=none", 404, "there is no schedule"),
        ("/batches/1", 400, "is no id"),
        (f"/batches/{NO_JOB}", 404, "there is no batch"),
        ("/nothing", 404, "There is no such page"),
        ("/static/1/../../app.py", 404, "no such"),
        ("/static/1/app.py", 404, "no such"),
    ],
)
async def test_bad_input_gets_a_page_that_says_what_is_wrong(
    admin: httpx.AsyncClient, path: str, status: int, says: str
) -> None:
    response = await admin.get(BASE + path)
    assert response.status_code == status
    assert says in (told(response) if "<main" in response.text else response.text)
    assert "Traceback" not in response.text


@pytest.mark.parametrize("path", ["/jobs", "/failures", "/failures/jobs", "/schedules/one"])
async def test_a_name_that_is_not_ascii_is_a_page(admin: httpx.AsyncClient, settings: Settings, path: str) -> None:
    response = await admin.get(BASE + path, params={"name": "caf\N{LATIN SMALL LETTER E WITH ACUTE}"})
    if settings.database_url.startswith("sqlite"):
        assert response.status_code == (404 if path == "/schedules/one" else 200)
    else:
        assert (response.status_code, "are ASCII" in told(response)) == (400, True)


async def test_a_database_that_is_away_is_a_page(caplog: pytest.LogCaptureFixture) -> None:
    settings = Settings(database_url="mysql+asyncmy://ada:hunter2@127.0.0.1:1/shop")
    async with browser(mounted(dashboard(signed_in(), settings=settings, time_limit=0.2))) as client:
        for path in (*PAGES[:-1], f"/jobs/{NO_JOB}", "/queues/mail"):
            response = await client.get(BASE + path)
            assert response.status_code == 503, path
            assert "does not answer" in told(response)
            assert "hunter2" not in response.text
        assert "problem" in told(await read(client, "/health"))


async def test_tables_that_are_missing_are_a_page(database_url: str) -> None:
    settings = Settings(database_url=database_url)
    async with browser(mounted(dashboard(signed_in(), settings=settings))) as client:
        assert "alembic upgrade head" in told(await read(client, "/queues", 503))


# --- what an attacker writes


async def test_markup_stays_text_wherever_it_comes_from(driver: DatabaseDriver, settings: Settings) -> None:
    jobs = await fill(driver, text=MARKUP, error=MARKUP)
    await driver.workers.heartbeat(worker(jobs.running, name="<i>name</i>"))
    await execute(driver, "UPDATE queue_workers SET host = :host, queues = :host", host="<b onclick=x>")
    app = mounted(dashboard(lambda _: Viewer(MARKUP), settings=settings))
    filters = urlencode({"name": MARKUP[:50], "queue": ""})
    async with browser(app) as client:
        pages = [f"/jobs/{each}" for each in (jobs.ready, jobs.running, jobs.retrying, jobs.failed)]
        for path in (*PAGES, *pages, "/queues/mail", f"/jobs?{filters}", f"/failures?{filters}"):
            response = await read(client, path)
            _assert_inert(response.text, path)
        assert "alert(1)" in told(await read(client, f"/jobs/{jobs.failed}")), "it is shown as text"
        for path in (f"/jobs?{urlencode({'state': MARKUP})}", f"/jobs?{urlencode({MARKUP: 1})}", f"/{MARKUP[:20]}"):
            _assert_inert((await client.get(BASE + path)).text, path)


def _assert_inert(page: str, path: str) -> None:
    assert "<script>alert" not in page, path
    assert "<img" not in page, path
    assert "<b onclick" not in page, path
    assert "<i>" not in page, path
    assert page.count("</title>") == 1 + page.count("<svg><title>"), path
    assert "49" not in page or "{{7*7}}" in page or "7*7" not in page, path
    assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in page, path


# --- what is hidden


async def test_redacted_fields_are_in_no_page(driver: DatabaseDriver, admin: httpx.AsyncClient) -> None:
    jobs = await fill(driver)
    for path in (*PAGES, *(f"/jobs/{each}" for each in (jobs.ready, jobs.retrying, jobs.failed)), "/queues/mail"):
        assert "secret@example.org" not in (await read(admin, path)).text, path
    assert "[redacted]" in told(await read(admin, f"/jobs/{jobs.failed}"))


async def test_a_viewer_without_the_right_sees_no_payload(driver: DatabaseDriver, settings: Settings) -> None:
    jobs = await fill(driver, text="a private word", error="a private reason")
    app = mounted(dashboard(lambda _: Viewer("Ada", {"see"}), settings=settings))
    async with browser(app) as client:
        for path in (*PAGES, *(f"/jobs/{each}" for each in (jobs.ready, jobs.retrying, jobs.failed)), "/queues/mail"):
            assert "a private" not in (await read(client, path)).text, path


async def test_the_hook_of_the_application_changes_what_is_shown(driver: DatabaseDriver, settings: Settings) -> None:
    def hide(name: str, payload: object) -> object:
        assert name == Letter.name
        return {"text": "hidden by the hook"}

    jobs = await fill(driver, text="a private word")
    async with browser(mounted(dashboard(signed_in(), redact=hide, settings=settings))) as client:
        said = told(await read(client, f"/jobs/{jobs.ready}"))
        assert "hidden by the hook" in said
        assert "a private word" not in said
