"""Rows of policies, schedules, limits, batches and operations that other programs have written: each stands for itself,
and stops no worker, no other row and no command."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

import outbox
from outbox import Job
from outbox.drivers.bulk import BulkFilter, BulkRequest, BulkState, Verb
from outbox.drivers.database import DatabaseDriver
from outbox.drivers.schedules import Declared
from outbox.drivers.values import JobState
from outbox.envelope import Envelope, serialize
from outbox.ids import new_job_id
from outbox.policies.base import Policies
from outbox.policies.batch import BatchPlan
from outbox.settlement import Settlement
from tests.conformance.jobs import FAILURE, envelope, envelopes
from tests.servers.sql import connection
from tests.support.commands import Ran, run
from tests.support.schedule_jobs import definition, put_due, stored, ticks

NOW = "'2026-01-01 00:00:00.000000'"
ID = "0" * 32


class Paced(Job):
    rate = "1000/s"
    burst = 100

    async def handle(self) -> None: ...


class PerCustomer(Job):
    concurrency_key = "customer"
    customer: int = 1

    async def handle(self) -> None: ...


def no_dates(url: str) -> list[str]:
    return ["'nonsense'", "x'ff'", "7"] if url.startswith("sqlite") else ["'0000-00-00 00:00:00'"]


def write(url: str, *statements: str) -> None:
    with connection(url) as opened:
        if opened.dialect.name != "sqlite":
            opened.execute(text("SET SESSION sql_mode = 'ALLOW_INVALID_DATES'"))
        for statement in statements:
            opened.exec_driver_sql(statement.replace("%", "%%") if opened.dialect.name != "sqlite" else statement)


async def shows(url: str, *command: str) -> Ran:
    """What a command shows, whatever is beside it."""
    ran = await run(url, *command)
    assert ran.code == 0, (command, ran)
    return ran


# --- headers of jobs


RATE = {"name": "theirs", "rate": "1/s"}
LINK = {"queue": "default", "name": "tests.Next", "priority": 5, "payload": "{}"}
HEADERS: list[tuple[Policies, Any]] = [
    (Policies.RATE, {"rates": {"limits": [RATE | {"rate": "often"}]}}),
    (Policies.RATE, {"rates": {"limits": [RATE | {"burst": 0}]}}),
    (Policies.RATE, {"rates": {"limits": [RATE | {"align": "fortnight"}]}}),
    (Policies.RATE, {"rates": {"limits": []}}),
    (Policies.RATE, {"rates": {"limits": [RATE], "cost": -1}}),
    (Policies.KEY, {"keys": {"concurrency": {"name": "theirs", "size": 0}}}),
    (Policies.KEY, {"keys": {"fair": {"name": "theirs", "size": -1}}}),
    (Policies.UNIQUE, {"unique": {"key": "no digits"}}),
    (Policies.UNIQUE, {"unique": {"key": "0" * 64, "until": "whenever"}}),
    (Policies.UNIQUE, {"unique": {"key": "0" * 64, "debounce": -1}}),
    (Policies.CHAIN, {"chain": {"id": ID, "rest": [LINK | {"priority": 77}]}}),
    (Policies.CHAIN, {"chain": {"id": ID, "rest": [LINK | {"queue": "q" * 99}]}}),
    (Policies.CHAIN, {"chain": {"id": ID, "rest": [LINK | {"headers": "nonsense"}]}}),
    (Policies.CHAIN, {"chain": {"id": ID, "catch": LINK | {"payload": "nonsense"}}}),
    (Policies.CHAIN, {"chain": {"id": ID, "rest": [LINK | {"headers": '{"timeout": -1}'}]}}),
]


async def test_headers_that_are_no_policy_fail_their_job_alone(database: DatabaseDriver) -> None:
    def theirs(policy: Policies, headers: Any) -> Envelope:
        return Envelope(new_job_id(), "default", "tests.Theirs", 5, "{}", json.dumps(headers), policies=int(policy))

    bad = [theirs(*each) for each in HEADERS]
    # As another program writes them: without the rows of their policies.
    with connection(database.database.url.render_as_string(hide_password=False)) as opened:
        for each in bad:
            opened.execute(
                text(
                    "INSERT INTO queue_jobs (id, queue, name, priority, payload, headers, attempts, available_at, "
                    f"created_at, policies) VALUES (:id, 'default', :name, 5, '{{}}', :headers, 0, {NOW}, {NOW}, :bits)"
                ),
                {"id": each.id.bytes, "name": each.name, "headers": each.headers, "bits": each.policies},
            )
    good = [serialize(Paced()), serialize(PerCustomer()), envelope()]
    await database.jobs.insert(good)
    claimed = set()
    while claims := await database.jobs.claim(["default"], 100, 30):
        claimed |= {claim.fence.job_id for claim in claims}
    assert claimed == {each.id for each in good}
    failed = {job.id: job.failure.message for job in await database.failed.page(limit=100)}
    assert failed.keys() == {each.id for each in bad}
    assert all("the headers cannot be read" in message for message in failed.values())


@pytest.mark.parametrize("bits", [*Policies, 127], ids=lambda bits: bits.name if isinstance(bits, Policies) else "all")
async def test_bits_of_policies_that_the_headers_know_nothing_of(
    database: DatabaseDriver, migrated_url: str, bits: int
) -> None:
    """As an operator leaves them who writes other headers. The jobs run as jobs without these policies."""
    job = envelope()
    write(
        migrated_url,
        *(
            "INSERT INTO queue_jobs (id, queue, name, priority, payload, headers, attempts, available_at, created_at, "
            f"policies) VALUES (x'{number:032x}', 'default', '{job.name}', 5, '{job.payload}', '{{}}', 0, {NOW}, "
            f"{NOW}, {int(bits)})"
            for number in range(1, 6)
        ),
    )
    await database.jobs.insert([job])
    assert job.name in (await shows(migrated_url, "show", f"{1:032x}")).out
    claims = await database.jobs.claim(["default"], 10, 30)
    assert len(claims) == 6
    done, failed, again, *others = (claim for claim in claims if claim.policies is not None)
    ends = [
        Settlement.completed(done.fence),
        Settlement.failed(failed.fence, FAILURE),
        Settlement.released(again.fence, 0),
        *(Settlement.snoozed(claim.fence) for claim in others),
    ]
    ends = [end.leaving(int(bits), "{}") for end in ends]
    assert len((await database.jobs.settle(ends)).accepted) == 5
    await database.policies.upkeep()
    assert (await shows(migrated_url, "retry", str(failed.fence.job_id))).out.startswith("Retried 1")
    assert (await shows(migrated_url, "cancel", str(again.fence.job_id))).out.startswith("Cancelled 1")
    assert len(await database.jobs.claim(["default"], 10, 30)) == 3


# --- limits and keys


async def test_a_limit_that_is_none_does_not_count(database: DatabaseDriver, migrated_url: str) -> None:
    write(
        migrated_url,
        f"INSERT INTO queue_limits (name, rate, set_at) VALUES ('{Paced.name}', 'often', {NOW})",
        f"INSERT INTO queue_limits (name, rate, burst, set_at) VALUES ('b', '1/s', 0, {NOW})",
        f"INSERT INTO queue_limits (name, rate, align, set_at) VALUES ('c', '1/s', 'x', {NOW})",
        f"INSERT INTO queue_limits (name, concurrency, set_at) VALUES ('{PerCustomer.name}', 0, {NOW})",
    )
    await database.jobs.insert([serialize(Paced()), serialize(PerCustomer())])
    assert len(await database.jobs.claim(["default"], 10, 30)) == 2
    assert "often" in (await shows(migrated_url, "limits")).out
    write(migrated_url, "UPDATE queue_rates SET rate = 'seldom', align = 'x'")
    assert "seldom" not in (await shows(migrated_url, "limits", "--json")).err
    await database.jobs.insert([serialize(Paced())])
    assert len(await database.jobs.claim(["default"], 10, 30)) == 1, "its declaration counts"


async def test_parked_jobs_of_a_rate_that_cannot_be_read_start(database: DatabaseDriver, migrated_url: str) -> None:
    jobs = [serialize(Paced()) for _ in range(150)]
    await database.jobs.insert(jobs)
    first = await database.jobs.claim(["default"], 150, 30)
    assert len(first) < len(jobs)
    write(
        migrated_url,
        "UPDATE queue_rates SET rate = 'seldom'",
        "UPDATE queue_rate_waits SET state = 0",
    )
    ends = [Settlement.completed(each.fence).leaving(each.policies or 0, each.headers) for each in first]
    await database.jobs.settle(ends)
    await database.policies.upkeep()
    waiting = await database.jobs.list_jobs(limit=1000)
    assert waiting
    assert any(job.state is not JobState.PARKED for job in waiting)


@pytest.mark.parametrize("column", ["kind", "state"])
async def test_a_job_whose_row_of_a_key_is_none_runs(database: DatabaseDriver, migrated_url: str, column: str) -> None:
    await database.jobs.insert([serialize(PerCustomer(customer=number)) for number in range(3)])
    write(migrated_url, f"UPDATE queue_keyed_jobs SET {column} = 77")
    claims = await database.jobs.claim(["default"], 10, 30)
    assert len(claims) == 3
    ends = [Settlement.completed(each.fence).leaving(each.policies or 0, each.headers) for each in claims]
    assert len((await database.jobs.settle(ends)).accepted) == 3


class PerTenant(Job):
    fair_key = "tenant"
    tenant: int = 1

    async def handle(self) -> None: ...


class Sync(Job):
    unique = True
    tenant: int = 1

    async def handle(self) -> None: ...


async def test_jobs_whose_turn_or_time_cannot_be_read_run(database: DatabaseDriver, migrated_url: str) -> None:
    sync = serialize(Sync())
    await database.jobs.insert([serialize(PerTenant()), sync])
    write(
        migrated_url,
        "UPDATE queue_keyed_jobs SET size = 0",
        f"INSERT INTO queue_unique_jobs (job_id, unique_key, state, due_at, first_at) "
        f"VALUES (x'{sync.id.hex}', x'{ID}{ID}', 0, {no_dates(migrated_url)[0]}, {NOW})",
    )
    assert len(await database.jobs.claim(["default"], 10, 30)) == 2


# --- schedules


@pytest.fixture
def configured(migrated_url: str) -> Any:
    outbox.configure(database_url=migrated_url)
    yield
    outbox.configure()


@pytest.mark.usefixtures("configured")
async def test_a_schedule_without_a_date_gets_one_and_the_others_tick(
    database: DatabaseDriver, migrated_url: str
) -> None:
    await put_due(database, migrated_url, when="90s")
    for number, moment in enumerate(no_dates(migrated_url)):
        await database.schedules.put(f"broken{number}", definition(when="@hourly", misfire="all"))
        write(migrated_url, f"UPDATE queue_schedules SET next_at = {moment} WHERE name = 'broken{number}'")
    due = {each.name for each in await database.schedules.next_due([]) if each.seconds <= 0}
    assert due == {"digest", *(f"broken{number}" for number in range(len(no_dates(migrated_url))))}
    for name in due:
        assert await database.schedules.tick(name, {})
    assert [tick.schedule for tick in await ticks(database)] == ["digest"]
    for schedule in await database.schedules.list():
        assert schedule.next_at is not None
        assert timedelta(0) < schedule.next_at - datetime.now(UTC) < timedelta(hours=2)


@pytest.mark.usefixtures("configured")
@pytest.mark.parametrize("broken", ["nonsense", "[]", '{"when": 7}'])
async def test_a_schedule_that_cannot_be_read_hides_no_other(
    database: DatabaseDriver, migrated_url: str, broken: str
) -> None:
    await database.schedules.put("good", definition(when="@hourly"))
    await database.schedules.put("bad", definition(when="@hourly"))
    write(migrated_url, f"UPDATE queue_schedules SET definition = '{broken}' WHERE name = 'bad'")
    assert [each.name for each in await database.schedules.list()] == ["good"]
    assert "good" in (await shows(migrated_url, "schedule", "list")).out
    one = await run(migrated_url, "schedule", "show", "bad")
    assert one.code != 0
    assert "remove the schedule" in one.err
    assert await database.schedules.put("bad", definition(when="@daily")) is False
    assert (await stored(database, "bad")).definition.when == "@daily"


@pytest.mark.parametrize("column", ["definition", "former"])
async def test_a_declaration_is_stored_again_over_what_cannot_be_read(
    database: DatabaseDriver, migrated_url: str, column: str
) -> None:
    def declared(when: str) -> Declared:
        plan = definition(when=when)
        assert plan.job is not None
        return Declared("digest", plan, lambda: plan.job)  # type: ignore[arg-type,return-value]

    await database.schedules.sync([declared("@hourly")])
    write(migrated_url, f"UPDATE queue_schedules SET {column} = 'nonsense', seen_at = NULL")
    await database.schedules.sync([declared("@daily")])
    assert (await stored(database)).definition.when == "@daily"


# --- batches


@pytest.mark.parametrize("plan", ["nonsense", "{}", '{"total": 1, "allow_failures": "few"}'])
async def test_a_batch_whose_plan_cannot_be_read_stays_and_stops_nothing(
    database: DatabaseDriver, migrated_url: str, plan: str
) -> None:
    ids = {name: new_job_id() for name in ("broken", "good")}
    for name, batch_id in ids.items():
        text_of = plan if name == "broken" else BatchPlan(name=name, total=1).model_dump_json()
        write(
            migrated_url,
            "INSERT INTO queue_batches (id, name, total, plan, ran, created_at) "
            f"VALUES (x'{batch_id.hex}', '{name}', 1, '{text_of}', 0, {NOW})",
        )
    await database.policies.upkeep()
    states = {row["name"]: row["state"] for row in (await shows(migrated_url, "batches", "--json")).document["batches"]}
    assert states == {"broken": "open", "good": "finished"}
    assert "broken" in (await shows(migrated_url, "batches", "show", str(ids["broken"]))).out


# --- bulk operations


async def test_a_bulk_operation_that_cannot_be_read_holds_up_no_other(
    database: DatabaseDriver, migrated_url: str
) -> None:
    await database.jobs.insert(envelopes(3))
    request = BulkRequest(Verb.CANCEL, BulkFilter(queue="default"))
    broken = [await database.operations.start(request) for _ in range(4)]
    changes = ("verb = 'juggle'", "matching = 'nonsense'", """matching = '{"colour": "red"}'""", "state = 'odd'")
    for operation, change in zip(broken, changes, strict=True):
        write(migrated_url, f"UPDATE queue_operations SET {change} WHERE id = x'{operation.id.hex}'")
    good = await database.operations.start(request)
    await database.operations.work_off()
    ended = await database.operations.get(good.id)
    assert ended is not None
    assert (ended.state, ended.done) == (BulkState.FINISHED, 3)
    assert [each.id for each in await database.operations.latest(10)] == [good.id]
    assert str(good.id)[-12:] in (await shows(migrated_url, "operations")).out


# --- what is kept and listed


async def test_finished_jobs_and_audit_entries_without_dates_are_listed(
    database: DatabaseDriver, migrated_url: str
) -> None:
    columns = "queue, name, priority, payload, headers, attempts, result, seconds"
    values = "'default', 'tests.Kept', 5, '{}', '{}', 1, '7', 0.5"
    ids = []
    for moment in (NOW, *no_dates(migrated_url)):
        ids.append(new_job_id())
        write(
            migrated_url,
            f"INSERT INTO queue_finished_jobs (id, {columns}, finished_at, kept_until) "
            f"VALUES (x'{ids[-1].hex}', {values}, {moment}, {moment})",
            "INSERT INTO queue_audit (id, acted_at, acted_by, action, target, affected) "
            f"VALUES (x'{new_job_id().hex}', {moment}, 'Ada', 'pause', 'nonsense', 1)",
            f"INSERT INTO queue_progress VALUES (x'{ids[-1].hex}', 0.5, 'half', {moment})",
        )
    assert database.finished is not None
    assert {job.id for job in await database.finished.latest()} == set(ids)
    for job_id in ids:
        found = await database.finished.get(job_id)
        assert found is not None
        assert (found.value, found.seconds) == (7, 0.5)
        assert "tests.Kept" in (await shows(migrated_url, "show", str(job_id))).out
    listed = await shows(migrated_url, "jobs", "--state", "finished")
    assert listed.out.count("tests.Kept") == len(ids)
    assert (await shows(migrated_url, "audit")).out.count("Ada") == len(ids)


class TestSQLite:
    """Servers take no such values."""

    @pytest.fixture
    def backend(self) -> str:
        return "sqlite"

    @pytest.mark.parametrize("no_id", ["x'00'", "'text'", "7"])
    async def test_a_bulk_operation_whose_id_is_none_holds_up_no_other(
        self, database: DatabaseDriver, migrated_url: str, no_id: str
    ) -> None:
        await database.jobs.insert(envelopes(3))
        request = BulkRequest(Verb.CANCEL, BulkFilter(queue="default"))
        broken, good = [await database.operations.start(request) for _ in range(2)]
        write(migrated_url, f"UPDATE queue_operations SET id = {no_id} WHERE id = x'{broken.id.hex}'")
        await database.operations.work_off()
        ended = await database.operations.get(good.id)
        assert ended is not None
        assert (ended.state, ended.done) == (BulkState.FINISHED, 3)

    async def test_texts_that_are_no_utf8_can_be_asked_for(self, database: DatabaseDriver, migrated_url: str) -> None:
        bad = "CAST(x'61ff' AS TEXT)"
        write(
            migrated_url,
            "INSERT INTO queue_jobs (id, queue, name, priority, payload, headers, attempts, available_at, created_at) "
            f"VALUES (x'{new_job_id().hex}', {bad}, {bad}, 5, '{{}}', '{{}}', 0, {NOW}, {NOW})",
            "INSERT INTO queue_failed_jobs VALUES "
            f"(x'{new_job_id().hex}', 'database', {bad}, {bad}, 5, '{{}}', '{{}}', 1, '{{}}', {NOW}, NULL, {bad})",
        )
        for command in (("stats",), ("stats", "--json"), ("jobs",), ("failed",), ("failed", "--groups"), ("check",)):
            await shows(migrated_url, *command)
        good = envelope()
        await database.jobs.insert([good])
        await database.jobs.fail_unreadable()
        [claim] = await database.jobs.claim(["default"], 10, 30)
        assert claim.fence.job_id == good.id
        assert len(await database.failed.page()) == 2
        assert await database.jobs.list_jobs() != []


@pytest.mark.parametrize("surrogate", [0xD800, 0xDCFF])
async def test_an_argument_that_is_no_utf8_is_one_line(
    database: DatabaseDriver, migrated_url: str, surrogate: int
) -> None:
    assert await database.failed.page() == []
    for command in (("unblock",), ("limits", "reset"), ("schedule", "pause")):
        ran = await run(migrated_url, *command, chr(surrogate))
        assert ran.code != 0
        assert (ran.out + ran.err).count("\n") == 1
