"""The documentation quotes programs that run."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import textwrap
from pathlib import Path

import pytest
from sqlalchemy import text

from outbox import migrations
from tests.servers import sql
from tests.support.python_process import run_python
from tests.support.table_versions import operations, version

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
QUOTED = [
    pytest.param(block, id=f"{page.name}-{number}")
    for page in PAGES
    for number, block in enumerate(BLOCK.findall(page.read_text()), 1)
]


@pytest.mark.parametrize("block", QUOTED)
def test_a_page_quotes_an_example_word_for_word(block: str) -> None:
    wanted = lines_of(block)
    assert any(holds(lines_of(file.read_text()), wanted) for file in EXAMPLES.rglob("*.py")), (
        f"no file of docs/examples/ holds these lines:\n{block}"
    )


def lines_of(code: str) -> list[str]:
    """Without blank ones: how many there are depends on what a function stands in."""
    return [line for line in code.splitlines() if line]


def holds(lines: list[str], wanted: list[str]) -> bool:
    """Whether ``wanted`` stands in ``lines``, indented or not."""
    windows = (lines[start : start + len(wanted)] for start in range(len(lines) - len(wanted) + 1))
    return any(textwrap.dedent("\n".join(window)).splitlines() == wanted for window in windows)


class Application:
    """A copy of the examples, with a database of its own."""

    def __init__(self, directory: Path, url: str, **environment: str) -> None:
        self.directory = directory / "application"
        shutil.copytree(EXAMPLES, self.directory)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("OUTBOX_")}
        self.environment = kept | {"DATABASE_URL": url, "OUTBOX_JOBS": "receipts,steps"} | environment

    def run(self, *arguments: str) -> str:
        ran = run_python(*arguments, cwd=self.directory, env=self.environment, check=False)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    def migrate(self) -> None:
        """As the page says: into the application's own history."""
        self.run("-m", "alembic", "revision", "--autogenerate", "--message", "outbox")
        self.run("-m", "alembic", "upgrade", "head")

    def migrate_as(self, other: Application) -> None:
        """The same with the revision of another, which is on SQLite."""
        for made in (other.directory / "migrations" / "versions").glob("*.py"):
            shutil.copy(made, self.directory / "migrations" / "versions")
        if self.environment["DATABASE_URL"] == other.environment["DATABASE_URL"]:
            shutil.copy(other.directory / "shop.db", self.directory)
        else:
            self.run("-m", "alembic", "upgrade", "head")

    def receipts(self) -> int:
        file = self.directory / "mail.log"
        return len(file.read_text().splitlines()) if file.exists() else 0


# The examples name SQLite's file as the pages do: relative to where they are run.
SQLITE = "sqlite+aiosqlite:///shop.db"


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Application:
    made = Application(tmp_path_factory.mktemp("migrated"), SQLITE)
    made.migrate()
    return made


@pytest.fixture
def application(database_url: str, backend: str, migrated: Application, tmp_path: Path) -> Application:
    made = Application(tmp_path, SQLITE if backend == "sqlite" else database_url)
    made.migrate_as(migrated)
    return made


on_sqlite = pytest.mark.parametrize("backend", [pytest.param("sqlite", marks=pytest.mark.sqlite)])
"""What each database makes of the same statements is tested where the feature is."""


def test_a_job_is_completed_by_the_transaction_of_its_writes(application: Application) -> None:
    application.environment["OUTBOX_JOBS"] = "charges"
    application.run("-m", "outbox", "dispatch", "charges.BookOrder", '{"order_id": 41}')
    application.run("-m", "outbox", "dispatch", "charges.BookOrderItself", '{"order_id": 42}')
    application.run("-m", "outbox.work", "--queue", "default,later", "--stop-when-empty")
    url = application.environment["DATABASE_URL"].replace(":///shop", f":///{application.directory}/shop")
    with sql.connection(url) as connection:
        assert sorted(connection.scalars(text("SELECT id FROM orders"))) == [41, 42]
        assert connection.scalar(text("SELECT COUNT(*) FROM queue_jobs")) == 0
        assert connection.scalar(text("SELECT COUNT(*) FROM queue_failed_jobs")) == 0


def test_orders_are_placed_and_their_jobs_run(application: Application) -> None:
    application.run("orders.py")
    application.run("sync_orders.py")
    url = application.environment["DATABASE_URL"].replace(":///shop", f":///{application.directory}/shop")
    with sql.connection(url) as connection:
        assert connection.scalar(text("SELECT COUNT(*) FROM queue_jobs")) == 12
        connection.execute(text("DELETE FROM queue_jobs WHERE queue IN ('later', 'slow')"))
    application.run("-m", "outbox.work", "--queue", "mail,default", "--stop-when-empty")
    assert application.receipts() == 5
    application.run("-m", "outbox.work", "workers.reports", "--stop-when-empty")


def test_schedules_are_added_and_declared(application: Application) -> None:
    application.environment["OUTBOX_JOBS"] = "receipts,schedules"
    url = application.environment["DATABASE_URL"].replace(":///shop", f":///{application.directory}/shop")
    with operations(url) as op:
        migrations.upgrade(op, version=4)
    application.run("schedules.py")
    assert application.run("-m", "outbox", "schedule", "list") == "No schedules.\n"
    application.run("-m", "outbox.work", "--max-time", "3")
    assert "schedules.CheckStock" in application.run("-m", "outbox", "schedule", "list")


@pytest.mark.sqlite
def test_a_workers_lines_go_where_the_application_says(migrated: Application, tmp_path: Path) -> None:
    application = Application(tmp_path, SQLITE, OUTBOX_JOBS="logging_jobs,receipts")
    application.migrate_as(migrated)
    application.run("sync_orders.py")
    shown = application.run("-m", "outbox.work", "--queue", "mail", "--stop-when-empty")
    logged = (application.directory / "worker.log").read_text()
    assert logged.count("outbox.jobs INFO") == application.receipts() == 3
    assert "SendReceipt" not in shown


def test_a_revision_upgrades_the_tables(database_url: str, backend: str, tmp_path: Path) -> None:
    application = Application(tmp_path, SQLITE if backend == "sqlite" else database_url)
    application.migrate()
    url = application.environment["DATABASE_URL"].replace(":///shop", f":///{application.directory}/shop")
    with operations(url) as op:
        migrations.downgrade(op, version=3)
    versions = application.directory / "migrations" / "versions"
    [before] = (file.stem.partition("_")[0] for file in versions.glob("*.py"))
    revision = (application.directory / "outbox_4.py").read_text()
    (versions / "outbox_4.py").write_text(revision.replace("down_revision = None", f"down_revision = {before!r}"))
    for command, expected in [("upgrade", 4), ("downgrade", 3), ("upgrade", 4)]:
        application.run("-m", "alembic", command, "head" if command == "upgrade" else "-1")
        assert version(url) == expected
    application.run("-m", "alembic", "check")


@pytest.mark.sqlite
def test_middleware_surrounds_jobs(migrated_url: str, backend: str, tmp_path: Path) -> None:
    if backend != "sqlite":
        pytest.skip("what surrounds a handler does not depend on the database")
    application = Application(tmp_path, migrated_url, OUTBOX_JOBS="middleware")
    application.run("-m", "outbox", "dispatch", "TenantReport", '{"tenant": "acme"}')
    said = application.run("-m", "outbox.work", "--stop-when-empty", "--middleware", "middleware:log_job")
    assert (application.directory / "report.log").read_text() == "for acme\n"
    assert "middleware.TenantReport attempt 1 is over\n" in said


def test_a_circuit_breaker_pauses_its_class(migrated_url: str, backend: str, tmp_path: Path) -> None:
    if backend != "sqlite":
        pytest.skip("tests of the breaker itself are for each database")
    application = Application(tmp_path, migrated_url, OUTBOX_JOBS="circuit_breaker")
    application.run("circuit_breaker.py")
    application.run("-m", "outbox.work", "--concurrency", "1", "--max-jobs", "3")
    shown = " ".join(application.run("-m", "outbox", "stats").split())
    reason = "circuit breaker: 3 exceptions within 60 s, the last ConnectionError, until 20"
    assert f"paused: the job circuit_breaker.ChargeCard: {reason}" in shown


def test_old_payloads_are_upgraded(application: Application) -> None:
    application.environment["OUTBOX_JOBS"] = "payload_versions"
    name = "payload_versions.SendNewsletter"
    for address in ("a@example.com", "b@example.com"):
        application.run("-m", "outbox", "dispatch", name, json.dumps({"addresses": [address], "language": "de"}))
    url = application.environment["DATABASE_URL"].replace(":///shop", f":///{application.directory}/shop")
    with sql.connection(url) as connection:
        old = {"payload": '{"address": "c@example.com"}', "headers": "{}", "some": '%"a@example.com"%'}
        update = "UPDATE queue_jobs SET payload = :payload, headers = :headers WHERE payload LIKE :some"
        connection.execute(text(update), old)
    checked = application.run("-m", "outbox", "check")
    assert f"1 job named {name} has version 1, and will be upgraded to 3" in checked
    assert f"1 job named {name} has version 3" in checked
    application.run("-m", "outbox.work", "--stop-when-empty")
    lines = (application.directory / "newsletters.log").read_text().splitlines()
    assert sorted(lines) == ["de: b@example.com", "en: c@example.com"]


@on_sqlite
def test_handlers_take_resources(application: Application) -> None:
    application.environment["OUTBOX_JOBS"] = "resources"
    application.run("-m", "outbox", "dispatch", "resources.CheckPrice", '{"article": "coffee"}')
    application.run("-m", "outbox.work", "--lifespan", "resources:lifespan", "--stop-when-empty")
    lines = (application.directory / "jobs.log").read_text().splitlines()
    assert lines == ["coffee costs 6.00", "closed after attempt 1"]


@on_sqlite
def test_a_tenant_travels_with_its_jobs(application: Application) -> None:
    application.environment["OUTBOX_JOBS"] = "dispatch_middleware"
    said = application.run("dispatch_middleware.py")
    assert said == "refused: dispatch_middleware.Invoice is dispatched without a tenant\n"
    application.run("-m", "outbox.work", "--stop-when-empty")
    lines = (application.directory / "invoices.log").read_text().splitlines()
    assert lines == ["invoice 1 for acme"]


def test_a_chain_hands_on_its_results(application: Application) -> None:
    application.environment["OUTBOX_JOBS"] = "chains"
    application.run("chains.py")
    shown = application.run("-m", "outbox.work", "--stop-when-empty")
    assert shown.index("2 prices need a look") < shown.index("stored ['coffee', 'tea']")


def test_jobs_with_keys_run_in_order(application: Application) -> None:
    application.environment["OUTBOX_JOBS"] = "keyed_jobs"
    application.run("keyed_jobs.py")
    application.run("-m", "outbox.work", "--stop-when-empty", "--sleep", "0.2")
    lines = (application.directory / "keyed.log").read_text().splitlines()
    assert len(lines) == 35
    assert [line for line in lines if line.startswith("7 ")] == ["7 placed", "7 paid", "7 sent"]
    assert lines.index("imported b.csv") < lines.index("imported 29.csv")


def test_a_batch_ends_when_its_jobs_have(application: Application) -> None:
    application.environment["OUTBOX_JOBS"] = "batches"
    application.run("batches.py")
    shown = application.run("-m", "outbox.work", "--stop-when-empty")
    assert "the price list is complete" in shown
    assert "cleaned up" in shown
    listed = application.run("-m", "outbox", "batches", "list")
    assert "finished   2 jobs, 0 left, 0 failed  prices" in listed
    assert "finished   2 jobs, 0 left, 0 failed  updates" in listed, "two chains of four jobs"


def test_a_rate_spaces_starts_and_moves_after_a_429(application: Application) -> None:
    application.environment["OUTBOX_JOBS"] = "rates"
    assert application.run("rates.py") == "taken\n"
    application.run("-m", "outbox.work", "--stop-when-empty", "--sleep", "0.2")
    lines = (application.directory / "rates.log").read_text().splitlines()
    calls = [line for line in lines if "mail" not in line and "with" not in line]
    assert [line.split()[0] for line in calls] == ["refused", "answered", "answered", "answered"]
    assert len(lines) == 9
    assert "mailgun" in application.run("-m", "outbox", "limits")


def test_jobs_are_looked_at_and_cancelled(application: Application) -> None:
    assert application.run("operating.py").startswith("mail 2 0 ")
    assert application.run("retry_failed.py") == "0 jobs will run again\n"
    lines = application.run("bulk.py").splitlines()
    assert lines[:2] == ["0 failed jobs []", "waiting 0 of 0 0 refused"]
    assert [line.split()[1:] for line in lines[2:]] == [["move", "stopped", "0"], ["retry", "waiting", "0"]]
    assert "anna" in application.run("-m", "outbox", "audit")


def test_unique_jobs_meet(application: Application) -> None:
    shown = application.run("unique_jobs.py")
    assert shown.splitlines() == ["made one job", "met one job", "it waits already: True"]
    url = application.environment["DATABASE_URL"].replace(":///shop", f":///{application.directory}/shop")
    with sql.connection(url) as connection:
        assert connection.scalar(text("SELECT COUNT(*) FROM queue_jobs")) == 6


@pytest.mark.sqlite
def test_a_request_runs_a_job_and_dispatches_one_afterwards(migrated_url: str, backend: str, tmp_path: Path) -> None:
    if backend != "sqlite":
        pytest.skip("tests/integration/contrib/test_after_response.py has every database")
    application = Application(tmp_path, migrated_url)
    get = "print(TestClient(app).get('/products/mug').json())"
    program = f"from fastapi.testclient import TestClient; from web_requests import app; {get}"
    assert application.run("-c", program) == "{'price': 900}\n"
    with sql.connection(migrated_url) as connection:
        assert connection.scalar(text("SELECT queue FROM queue_jobs")) == "statistics"


@pytest.mark.sqlite
def test_running_jobs_are_cancelled(migrated_url: str, backend: str, tmp_path: Path) -> None:
    if backend != "sqlite":
        pytest.skip("tests/integration/every_store/test_cancelled_jobs.py has every store")
    application = Application(tmp_path, migrated_url, OUTBOX_JOBS="cancelled_jobs")
    assert application.run("cancelled_jobs.py").splitlines()[-2:] == ["True True", "False too late"]
    assert (application.directory / "intro.cancelled").read_text() == "thrown away\n"
    assert (application.directory / "export.cancelled").read_text() == "in order\n"


@pytest.mark.sqlite
def test_attempts_are_limited(migrated_url: str, backend: str, tmp_path: Path) -> None:
    if backend != "sqlite":
        pytest.skip("tests/integration/every_store/test_limited_attempts.py has every store")
    application = Application(tmp_path, migrated_url, OUTBOX_JOBS="attempt_limits")
    assert application.run("attempt_limits.py") == "left out\n"
    said = application.run("-m", "outbox.work", "--stop-when-empty")
    assert ("code 4711" in said, "order 1" in said) == (True, True)
    failed = application.run("-m", "outbox", "failed", "--json")
    assert ("the warehouse does not answer" in failed, "its max_snoozes" in failed) == (True, True)


@on_sqlite
def test_events_are_heard(application: Application) -> None:
    shown = application.run("events.py").splitlines()
    assert shown.count("receipts.SendReceipt completed") == 2
    assert shown[-1] == "batch receipts: finished, 0 of 2 failed"


@on_sqlite
def test_encrypted_jobs_are_read_by_workers_only(application: Application) -> None:
    key = base64.b64encode(bytes(range(32))).decode()
    application.environment |= {"OUTBOX_JOBS": "encrypted_jobs", "OUTBOX_ENCRYPTION_KEYS": key}
    application.run("encrypted_jobs.py")
    url = application.environment["DATABASE_URL"].replace(":///shop", f":///{application.directory}/shop")
    with sql.connection(url) as connection:
        payloads = list(connection.scalars(text("SELECT payload FROM queue_jobs")))
    assert len(payloads) == 3
    assert not any("4111" in str(payload) or "Ada" in str(payload) for payload in payloads)
    shown = application.run("-m", "outbox.work", "--stop-when-empty")
    assert "charged 20 to the card that ends with 1111" in shown
    assert "hello Ada" in shown
    assert "ValueError: encrypted" in shown
    assert "4111" not in shown
    assert application.run("-m", "outbox", "rekey") == "Encrypted 0 rows with the first key.\n"


def test_results_are_kept(application: Application) -> None:
    assert application.run("results.py").splitlines() == [
        "{'rows': 1000}",
        "90% row 900 of 1,000",
        "{'rows': 1000} True",
    ]


def test_messages_are_received_once(application: Application) -> None:
    assert application.run("inbox.py").splitlines() == ["stored", "known", "dispatched", "known"]


@on_sqlite
def test_an_applications_tests_pass(application: Application) -> None:
    # Two runs that clean one directory of temporary files at once can fail.
    application.environment["PYTEST_DEBUG_TEMPROOT"] = str(application.directory)
    ran = application.run("-m", "pytest", "-q", "--asyncio-mode", "auto", "-p", "no:cacheprovider", "test_checkout.py")
    assert "6 passed" in ran


@pytest.mark.sqlite
def test_a_worker_runs_in_an_applications_process(migrated_url: str, backend: str, tmp_path: Path) -> None:
    if backend != "sqlite":
        pytest.skip("the worker's own tests run on servers")
    application = Application(tmp_path, migrated_url)
    application.run("-m", "outbox", "dispatch", "SendReceipt", '{"order_id": 7}')
    application.run("-c", SERVE)
    assert application.receipts() == 1


@pytest.mark.sqlite
def test_the_dashboard_of_an_application_is_closed_and_redacts(migrated: Application, tmp_path: Path) -> None:
    application = Application(tmp_path, SQLITE, SHOP_SESSION="s3cret")
    application.migrate_as(migrated)
    application.run("-c", LOOK)


LOOK = """
import asyncio
import httpx, outbox
from admin import Welcome, app

async def look():
    job_id = await outbox.dispatch(Welcome(email="ada@example.org"))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as client:
        assert (await client.get("/outbox/")).status_code == 401
        client.cookies["session"] = "s3cret"
        page = await client.get(f"/outbox/jobs/{job_id}")
    assert page.status_code == 200, page.text
    assert "[redacted]" in page.text and "ada@example.org" not in page.text

asyncio.run(look())
"""


@pytest.mark.sqlite
def test_a_web_application_exposes_its_dispatches(migrated_url: str, backend: str, tmp_path: Path) -> None:
    if backend != "sqlite":
        pytest.skip("what is counted does not depend on the database")
    application = Application(tmp_path, migrated_url)
    page = application.run("-c", SCRAPE)
    assert 'outbox_jobs_dispatched_total{job="receipts.SendReceipt",queue="mail"} 1.0' in page


@pytest.mark.sqlite
def test_a_trace_goes_from_the_request_to_the_job(migrated_url: str, backend: str, tmp_path: Path) -> None:
    if backend != "sqlite":
        pytest.skip("what is traced does not depend on the database")
    application = Application(tmp_path, migrated_url, OUTBOX_JOBS="receipts,tracing")
    shown = application.run("tracing.py")
    shown += application.run("-m", "outbox.work", "--queue", "mail", "--stop-when-empty")
    assert re.findall(r'"name": "(.*)"', shown) == ["dispatch mail", "POST /orders", "process mail"]
    assert len(set(re.findall(r'^        "trace_id": "(.*)"', shown, re.MULTILINE))) == 1


@pytest.mark.sqlite
def test_a_line_says_which_job_wrote_it(migrated_url: str, backend: str, tmp_path: Path) -> None:
    if backend != "sqlite":
        pytest.skip("what is logged does not depend on the database")
    application = Application(tmp_path, migrated_url, OUTBOX_JOBS="job_logs")
    job_id = application.run("-m", "outbox", "dispatch", "ImportPrices", '{"tenant": "acme"}').strip()
    application.run("-m", "outbox.work", "--stop-when-empty")
    logged = (application.directory / "jobs.log").read_text()
    assert f"imported (job_logs.ImportPrices {job_id}, attempt 1, acme)\n" in logged


@pytest.mark.sqlite
def test_failed_jobs_are_reported(tmp_path: Path) -> None:
    application = Application(tmp_path, SQLITE)
    application.run(
        "-c", "import error_reports, outbox.client_state as c; assert len(c.current_client().instruments) == 1"
    )


@pytest.mark.sqlite
@pytest.mark.parametrize(
    ("module", "client"), [("web_fastapi", "fastapi.testclient"), ("web_litestar", "litestar.testing")]
)
def test_a_lifespan_runs_a_worker_in_development(
    migrated: Application, tmp_path: Path, module: str, client: str
) -> None:
    application = Application(tmp_path, SQLITE, DEVELOPMENT="1")
    application.migrate_as(migrated)
    application.run("-c", PLACE.format(module=module, client=client))
    assert application.receipts() == 1


PLACE = """
import pathlib, time
from {client} import TestClient
from {module} import app

with TestClient(app) as client:
    assert client.post("/orders").text == "1"
    while not pathlib.Path("mail.log").exists():
        time.sleep(0.02)
"""


@pytest.mark.sqlite
@pytest.mark.parametrize(
    "place",
    [("-c", "from web_flask import app; assert app.test_client().post('/orders').text == '1'"), ("web_sqlmodel.py",)],
)
def test_sessions_of_other_libraries_carry_jobs(migrated: Application, tmp_path: Path, place: tuple[str, ...]) -> None:
    application = Application(tmp_path, SQLITE)
    application.environment["DATABASE_URL"] = f"sqlite+aiosqlite:///{application.directory}/shop.db"
    application.migrate_as(migrated)
    application.run(*place)
    application.run("-m", "outbox.work", "--queue", "mail", "--stop-when-empty")
    assert application.receipts() == 1


SCRAPE = """
import time
from fastapi.testclient import TestClient
from metrics_app import app

client = TestClient(app)
assert client.post("/receipts/7").status_code == 200
while "SendReceipt" not in (page := client.get("/metrics/").text):
    time.sleep(0.02)  # a thread counts
print(page)
"""


SERVE = """
import asyncio, pathlib
from lifespan import app

async def serve():
    async with app.router.lifespan_context(app), asyncio.timeout(30):
        while not pathlib.Path("mail.log").exists():
            await asyncio.sleep(0.05)

asyncio.run(serve())
"""


@pytest.mark.sqlite
def test_a_dispatch_to_redis_in_a_transaction_is_run_from_there(
    migrated: Application, redis_url: str, tmp_path: Path
) -> None:
    application = Application(tmp_path, SQLITE, REDIS_URL=redis_url)
    application.migrate_as(migrated)
    application.run("redis_orders.py")
    application.run("-m", "outbox.work", "--connection", "redis", "--queue", "mail", "--stop-when-empty")
    assert application.receipts() == 1
