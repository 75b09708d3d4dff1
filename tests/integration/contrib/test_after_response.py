"""`after_response`: jobs that are dispatched when the response of a request has been sent."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import FastAPI, HTTPException
from httpx import ASGITransport, AsyncClient
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

import outbox
from outbox import Job
from outbox.contrib.starlette import AfterResponse, after_response
from outbox.drivers.database import DatabaseDriver
from outbox.errors import InvalidJob, InvalidOption


class Greet(Job):
    name = "tests.after_response.Greet"
    number: int = 0

    async def handle(self) -> None: ...


class Left(Greet):
    name = "tests.after_response.Left"
    dispatch_if = False


app = FastAPI()
app.add_middleware(AfterResponse)


@app.get("/async")
async def async_endpoint() -> str:
    after_response(Greet(number=1))
    after_response(Greet(number=2), queue="mail", delay=60)
    after_response(Left())
    return "sent"


@app.get("/sync")
def sync_endpoint() -> str:
    after_response(Greet(number=3))
    return "sent"


@app.get("/refused")
async def refused() -> None:
    after_response(Greet(number=4))
    raise HTTPException(409)


@app.get("/broken")
async def broken() -> None:
    after_response(Greet(number=5))
    raise ZeroDivisionError


@app.get("/wrong/{what}")
async def wrong(what: str) -> str:
    with pytest.raises(InvalidOption if what == "option" else InvalidJob):
        after_response(Greet(), priority=99) if what == "option" else after_response(Request)  # type: ignore[arg-type]
    return "refused at once"


@pytest.fixture
async def driver(migrated_url: str) -> AsyncIterator[DatabaseDriver]:
    outbox.configure(database_url=migrated_url)
    driver = DatabaseDriver(migrated_url)
    yield driver
    await driver.close()
    await outbox.disconnect()
    outbox.configure()


async def numbers(driver: DatabaseDriver) -> list[int]:
    return sorted(int(job.payload.partition(":")[2].rstrip("}")) for job in await driver.jobs.list_jobs())


def client(application: Any = app) -> AsyncClient:
    transport = ASGITransport(application, raise_app_exceptions=False)
    return AsyncClient(transport=transport, base_url="http://shop")


async def test_jobs_of_a_request_are_dispatched(driver: DatabaseDriver) -> None:
    async with client() as web:
        assert (await web.get("/async")).text == '"sent"'
        assert await numbers(driver) == [1, 2]
        assert {job.queue for job in await driver.jobs.list_jobs()} == {"default", "mail"}
        assert (await web.get("/sync")).status_code == 200
        assert await numbers(driver) == [1, 2, 3]


async def test_a_request_that_fails_dispatches_nothing(driver: DatabaseDriver) -> None:
    async with client() as web:
        assert [(await web.get(path)).status_code for path in ("/refused", "/broken")] == [409, 500]
        assert [(await web.get(f"/wrong/{what}")).status_code for what in ("job", "option")] == [200, 200]
    assert await numbers(driver) == []


async def test_nothing_is_stored_before_the_last_part_is_sent(driver: DatabaseDriver) -> None:
    async def parts() -> AsyncIterator[str]:
        after_response(Greet(number=1))
        yield "a"
        yield "b"

    async def stream(_: Request) -> StreamingResponse:
        return StreamingResponse(parts(), background=BackgroundTask(after_response, Greet(number=2)))

    application = Starlette(routes=[Route("/", stream)])
    application.add_middleware(AfterResponse)
    stored: list[tuple[Any, list[int]]] = []

    async def send(message: Any) -> None:
        stored.append((message.get("body"), await numbers(driver)))

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {"type": "http", "asgi": {"version": "3.0", "spec_version": "2.4"}, "http_version": "1.1"}
    scope |= {"method": "GET", "path": "/", "query_string": b"", "headers": []}  # type: ignore[dict-item]
    await application(scope, receive, send)
    assert stored == [(None, []), (b"a", []), (b"b", []), (b"", [])]
    assert await numbers(driver) == [1, 2], "also what a background task has added"


async def test_a_store_that_does_not_answer_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    outbox.configure(database_url="mysql+asyncmy://nobody@127.0.0.1:1/nothing")

    async def one(_: Request) -> PlainTextResponse:
        after_response(Greet())
        return PlainTextResponse("sent")

    application = Starlette(routes=[Route("/", one)])
    application.add_middleware(AfterResponse)
    caplog.set_level(logging.ERROR, "outbox.contrib.starlette")
    async with client(application) as web:
        assert (await web.get("/")).text == "sent"
    await outbox.disconnect()
    outbox.configure()
    assert "tests.after_response.Greet was not dispatched after the response" in caplog.text


async def test_it_is_refused_outside_of_a_request() -> None:
    with pytest.raises(RuntimeError, match="with the middleware AfterResponse"):
        after_response(Greet())
