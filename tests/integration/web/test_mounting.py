"""The dashboard below another application: links, redirects and forms stay below the place of its mount."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from litestar import Litestar, asgi
from starlette.applications import Starlette

from outbox.drivers.database import DatabaseDriver
from outbox.settings import Settings
from outbox.web import dashboard
from tests.conformance.jobs import envelope
from tests.support.dashboards import BASE, browser, mounted, signed_in, told


def in_fastapi(app: Starlette) -> FastAPI:
    application = FastAPI()
    application.mount(BASE, app)
    return application


def in_litestar(app: Starlette) -> Litestar:
    return Litestar([asgi(BASE, is_mount=True, copy_scope=True)(app)], openapi_config=None)


pytestmark = [pytest.mark.sqlite, pytest.mark.parametrize("backend", ["sqlite"], indirect=True)]


@pytest.mark.parametrize("mount", [mounted, in_fastapi, in_litestar])
async def test_pages_and_actions_stay_below_the_mount(driver: DatabaseDriver, settings: Settings, mount: Any) -> None:
    job = envelope(queue="mail")
    await driver.jobs.insert([job])
    async with browser(mount(dashboard(signed_in(), settings=settings))) as client:
        overview = await client.get(f"{BASE}/")
        links = set(re.findall(r'(?:href|src|action)="(/[^"]*)"', overview.text))
        assert len(links) > 10
        for link in links:
            assert link.startswith(f"{BASE}/")
            assert (await client.get(link)).status_code == 200, link
        listed = await client.get(f"{BASE}/jobs?queue=mail&limit=1")
        assert f'href="{BASE}/jobs/{job.id}"' in listed.text
        done = await client.post(f"{BASE}/queues/mail/pause", data={"connection": "database"})
        assert done.headers["location"] == f"{BASE}/queues/mail?connection=database"
        assert "mail is paused." in told(await client.get(done.headers["location"]))
        missing = await client.get(f"{BASE}/nothing")
        assert missing.status_code == 404
        assert f'href="{BASE}/' in missing.text
        without_slash = await client.get(BASE, follow_redirects=True)
        assert "Overview" in told(without_slash)


@pytest.mark.parametrize("root", ["/shop", "/shop/eu"])
@pytest.mark.parametrize("mount", [mounted, in_fastapi, in_litestar])
async def test_a_mount_below_a_root_path_is_below_both(settings: Settings, mount: Any, root: str) -> None:
    """Whether a proxy in front takes the root path away or not."""
    transport = httpx.ASGITransport(mount(dashboard(signed_in(), settings=settings)), root_path=root)
    async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
        for path in (f"{root}{BASE}/workers", f"{BASE}/workers", f"{root}{BASE}/", f"{BASE}/"):
            page = await client.get(path)
            assert page.status_code == 200, path
            assert f'href="{root}{BASE}/jobs"' in page.text


@pytest.mark.parametrize("mount", [mounted, in_fastapi, in_litestar])
async def test_a_root_path_that_ends_with_a_slash_makes_no_link_with_two(settings: Settings, mount: Any) -> None:
    transport = httpx.ASGITransport(mount(dashboard(signed_in(), settings=settings)), root_path="/shop/")
    async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
        page = await client.get(f"{BASE}/workers")
    assert page.status_code == 200
    assert f'href="/shop{BASE}/jobs"' in page.text
    assert "/shop//" not in page.text


async def test_the_path_of_a_request_makes_no_link_to_another_host(settings: Settings) -> None:
    """Of a framework that takes more away than a mount."""
    app = dashboard(signed_in(), settings=settings)

    async def cutting(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "path": "/nothing"}, receive, send)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(cutting), base_url="http://testserver") as client:
        page = await client.get("http://testserver//evil.example/nothing")
    assert page.status_code == 404
    assert 'href="/evil.example/jobs"' in page.text
    assert '"//' not in page.text
