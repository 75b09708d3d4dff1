"""A dashboard over the stores of a test, the jobs that it shows, and a browser's requests to it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from html import unescape

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Mount

from outbox import Job, JobId
from outbox.drivers.base import Driver
from outbox.drivers.metrics import Activity
from outbox.drivers.values import RunningJob, WorkerStatus
from outbox.envelope import serialize
from outbox.ids import new_job_id
from outbox.options import JobOptions
from outbox.settlement import Failure, Outcome, Settlement
from outbox.web import Viewer

BASE = "/outbox"
MARKUP = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'`{{7*7}}</pre></title>\N{RIGHT-TO-LEFT OVERRIDE}"


class Letter(Job):
    name = "tests.Letter"
    queue = "mail"
    redact = ["email"]  # noqa: RUF012 - as applications write it
    max_tries = 3

    email: str
    text: str = ""

    async def handle(self) -> None: ...


@dataclass(frozen=True)
class Shown:
    """One job of each kind."""

    ready: JobId
    delayed: JobId
    running: JobId
    retrying: JobId
    failed: JobId


async def fill(driver: Driver, text: str = "hello", error: str = "no such address") -> Shown:
    """A job in each state, and a worker that runs one of them."""
    failure = Failure("SMTPError", f"{error}: secret@example.org", f"Traceback: secret@example.org {error}")

    def letter(delay: float = 0) -> JobId:
        envelope = serialize(Letter(email="secret@example.org", text=text), JobOptions(delay=delay or None))
        envelopes.append(envelope)
        return envelope.id

    envelopes: list[object] = []
    failed, retrying, running = letter(), letter(), letter()
    await driver.jobs.insert(envelopes)  # type: ignore[arg-type]
    claims = {claim.fence.job_id: claim.fence for claim in await driver.jobs.claim(["mail"], 3, 600)}
    await driver.jobs.settle(
        [Settlement.failed(claims[failed], failure), Settlement.retried(claims[retrying], 60, failure)]
    )
    envelopes.clear()
    ready, delayed = letter(), letter(delay=3_600)
    await driver.jobs.insert(envelopes)  # type: ignore[arg-type]
    await driver.workers.heartbeat(worker(running))
    return Shown(ready, delayed, running, retrying, failed)


def worker(running: JobId | None = None, name: str = "sorter") -> WorkerStatus:
    jobs = () if running is None else (RunningJob(running, "tests.Letter", "mail", 2.0),)
    return WorkerStatus(new_job_id().bytes, name, "host", 7, "mail,later", 10, len(jobs), 41, 1, jobs=jobs)


def ran(completed: int, failed: int = 0, seconds: float = 2.0) -> Activity:
    """What a worker has done in a minute."""
    activity = Activity()
    ended = completed + failed
    outcomes = {Outcome.COMPLETED: completed, Outcome.FAILED: failed}
    activity.add(outcomes, [seconds / 2] * ended, [seconds] * ended)
    return activity


def signed_in(may: str = "admin") -> Callable[[Request], Viewer]:
    return lambda _: Viewer("Ada", may)


def mounted(dashboard: Starlette) -> Starlette:
    return Starlette(routes=[Mount(BASE, dashboard)])


def browser(app: Starlette, host: str = "testserver") -> httpx.AsyncClient:
    """Sends what a browser sends with a form of the page itself. An exception of the application is one of the test."""
    headers = {"sec-fetch-site": "same-origin"}
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=f"http://{host}", headers=headers)


def told(response: httpx.Response) -> str:
    """The text of a page, without its markup."""
    body = response.text[response.text.index('<div id="said"') :]
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", body)).split())


Get = Callable[[str], Awaitable[httpx.Response]]
