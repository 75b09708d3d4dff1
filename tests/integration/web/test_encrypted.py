"""What is encrypted of jobs is closed to every viewer but those with a right to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest

import outbox
from outbox import Job, JobId, dispatch
from outbox.events import JobSettled
from outbox.settings import Settings
from outbox.web import Viewer, dashboard
from tests.support.dashboards import BASE, browser, mounted
from tests.support.embedded_worker import working

KEY, OTHER = "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=", "QkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkI="
CARD, PIN = "4111-1111", "90210"
SEES = {"viewer", "see-encrypted"}


class Payment(Job):
    name = "tests.Payment"
    encrypt = True
    keep_for = 60
    max_tries = 1
    redact = ["pin"]  # noqa: RUF012 - as applications write it

    card: str = CARD
    pin: str = PIN
    fails: bool = False

    async def handle(self) -> str:
        if self.fails:
            raise ValueError(f"{self.card} with {self.pin} was refused")
        return f"{self.card} was charged"


@pytest.fixture
async def jobs(migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[dict[str, JobId]]:
    """One that waits, one that was completed, and one that has failed."""
    monkeypatch.setenv("DATABASE_URL", migrated_url)
    monkeypatch.setenv("OUTBOX_ENCRYPTION_KEYS", KEY)
    async with working(migrated_url) as worker:
        found = {"completed": await dispatch(Payment()), "failed": await dispatch(Payment(fails=True))}
        await worker.event(JobSettled, 2)
    found["waiting"] = await dispatch(Payment())
    yield found
    await outbox.disconnect()


async def pages(url: str, may: str | Iterable[str], job_ids: Iterable[JobId], key: str = KEY, **options: Any) -> str:
    settings = Settings(database_url=url, encryption_keys=(key,))
    app = mounted(dashboard(lambda _: Viewer("Ada", may), settings=settings, **options))
    async with browser(app) as client:
        return "".join([(await client.get(f"{BASE}/jobs/{job_id}")).text for job_id in job_ids])


@pytest.mark.parametrize("may", ["admin", {"see", "see-encrypted"}], ids=["every preset", "no other right"])
async def test_without_the_right_nothing_is_opened(
    migrated_url: str, jobs: dict[str, JobId], may: str | set[str]
) -> None:
    shown = await pages(migrated_url, may, jobs.values())
    assert CARD not in shown


async def test_with_the_right_a_page_of_one_job_shows_it(migrated_url: str, jobs: dict[str, JobId]) -> None:
    shown = {name: await pages(migrated_url, SEES, [job_id], read_only=True) for name, job_id in jobs.items()}
    assert all(f'"card": "{CARD}"' in page.replace("&#34;", '"') for page in shown.values())
    assert f"{CARD} was charged" in shown["completed"]
    assert f"{CARD} with [redacted] was refused" in shown["failed"]
    assert PIN not in "".join(shown.values()), "redacted fields stay hidden"


async def test_without_the_key_the_page_says_why_it_is_closed(migrated_url: str, jobs: dict[str, JobId]) -> None:
    shown = await pages(migrated_url, SEES, jobs.values(), key=OTHER)
    assert CARD not in shown
    assert shown.count("it was encrypted with the key") == len(jobs)
