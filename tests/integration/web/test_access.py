"""The dashboard is closed by default: each route has its right, and each request is from where it says."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

from outbox.errors import ConfigurationError, InvalidOption
from outbox.ids import new_job_id
from outbox.settings import Settings
from outbox.web import ADMIN, OPERATOR, VIEWER, Right, Viewer, dashboard
from outbox.web.rights import READ_ONLY
from outbox.web.routes import DashboardRoute
from outbox.web.security import is_same_origin
from tests.support.dashboards import BASE, browser, mounted, signed_in, told

OPEN = {"/static/{version}/{name}"}
"""What is no secret: files of the package."""


def routes(app: Starlette) -> list[Route]:
    return [route for route in app.routes if isinstance(route, Route)]


def closed(**given: Any) -> Starlette:
    return dashboard(lambda _: None, **given)


def path_of(route: Route) -> str:
    return BASE + route.path.format(queue="mail", id=new_job_id(), version="1", name="dashboard.css")


def test_each_route_demands_a_right() -> None:
    app = closed()
    assert len(routes(app)) == len(app.routes) > 10
    without = {route.path for route in routes(app) if not isinstance(route, DashboardRoute)}
    assert without == OPEN
    for route in routes(app):
        if isinstance(route, DashboardRoute):
            assert isinstance(route.right, Right)
            writes = route.methods != {"GET", "HEAD"}
            assert not (writes and route.right in READ_ONLY), f"{route.path} demands {route.right}"


async def test_no_page_is_shown_without_a_viewer(settings: Settings) -> None:
    app = closed(settings=settings)
    async with browser(mounted(app)) as client:
        for route in routes(app):
            for method in sorted(route.methods or ()):
                response = await client.request(method, path_of(route))
                assert response.status_code == (200 if route.path in OPEN else 401), (method, route.path)


async def test_no_page_is_shown_without_its_right(settings: Settings) -> None:
    for right in (None, *Right):
        app = dashboard(lambda _, may=right: Viewer("Ada", {may} if may else ()), settings=settings)
        async with browser(mounted(app)) as client:
            for route in routes(app):
                if isinstance(route, DashboardRoute) and route.right is not right:
                    [method, *_] = sorted(route.methods or ())
                    response = await client.request(method, path_of(route))
                    assert response.status_code == 403, (method, route.path, right)
                    assert "lacks the right" in told(response)


async def test_no_route_answers_another_origin_or_another_host(settings: Settings) -> None:
    app = dashboard(signed_in(), settings=settings, allowed_hosts=["testserver"])
    async with browser(mounted(app)) as client, browser(mounted(app), "evil.example") as elsewhere:
        for route in routes(app):
            if not isinstance(route, DashboardRoute):
                continue
            [method, *_] = sorted(route.methods or ())
            assert (await elsewhere.request(method, path_of(route))).status_code == 400, route.path
            if method == "POST":
                for site in ("cross-site", "same-site", "none"):
                    response = await client.post(path_of(route), headers={"sec-fetch-site": site})
                    assert response.status_code == 403, (route.path, site)
                    assert "another site" in told(response)


def test_presets_of_rights_grow() -> None:
    assert VIEWER < OPERATOR < ADMIN == frozenset(Right) - {Right.SEE_ENCRYPTED}
    assert Viewer("Ada").may == VIEWER
    assert Viewer("Ada", may="operator").may == OPERATOR
    assert Viewer("Ada", may={"see", "retry-failed"}).may == {Right.SEE, Right.RETRY_FAILED}
    assert Viewer("Ada", may={"admin", "see-encrypted"}).may == frozenset(Right)


@pytest.mark.parametrize("may", ["root", {"se"}, [3], 7])
def test_a_right_that_does_not_exist_is_refused(may: Any) -> None:
    with pytest.raises(InvalidOption, match=r"see|viewer"):
        Viewer("Ada", may)


def test_a_dashboard_without_a_way_to_sign_in_is_refused() -> None:
    for given in (
        {},
        {"user": "ada"},
        {"password": "x"},
        {"user": "", "password": "x"},
        {"user": "a:b", "password": "x"},
    ):
        with pytest.raises(ConfigurationError, match="closed by default|needs a user"):
            dashboard(**given)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="not both"):
        dashboard(signed_in(), user="ada", password="secret")


async def test_a_user_with_a_password(settings: Settings) -> None:
    async with browser(mounted(dashboard(user="ada", password="pass:wörd", settings=settings))) as client:
        refused = await client.get(f"{BASE}/workers")
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"].startswith("Basic realm=")
        for wrong in ("ada:wrong", "bob:pass:wörd", "ada", "", "ada:pass:wörd "):
            headers = {"authorization": "Basic " + base64.b64encode(wrong.encode()).decode()}
            assert (await client.get(f"{BASE}/workers", headers=headers)).status_code == 401, wrong
        for broken in ("Basic %%%", "Basic", "Bearer x"):
            assert (await client.get(f"{BASE}/workers", headers={"authorization": broken})).status_code == 401, broken
        right = {"authorization": "Basic " + base64.b64encode("ada:pass:wörd".encode()).decode()}
        assert (await client.get(f"{BASE}/workers", headers=right)).status_code == 200


async def test_what_auth_returns_or_raises_is_no_secret_of_the_page(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    def raises(_: Request) -> Viewer:
        raise RuntimeError("the password of the user store is hunter2")

    for auth in (raises, lambda _: "Ada", lambda _: True):
        async with browser(mounted(dashboard(auth, settings=settings))) as client:  # type: ignore[arg-type]
            response = await client.get(f"{BASE}/workers")
            assert response.status_code in (500, 503)
            assert "hunter2" not in response.text
            assert "Traceback" not in response.text
            assert "sign-in failed" in told(response)
    assert "hunter2" in caplog.text


async def test_auth_may_be_async(settings: Settings) -> None:
    async def auth(request: Request) -> Viewer | None:
        return Viewer("Ada") if request.headers.get("x-user") == "ada" else None

    async with browser(mounted(dashboard(auth, settings=settings))) as client:
        assert (await client.get(f"{BASE}/workers")).status_code == 401
        assert (await client.get(f"{BASE}/workers", headers={"x-user": "ada"})).status_code == 200


async def test_a_host_that_is_not_allowed_is_refused(settings: Settings) -> None:
    app = mounted(dashboard(signed_in(), settings=settings, allowed_hosts=["queue.example.org", "::1"]))
    for host, status in (("queue.example.org", 200), ("queue.example.org:8000", 200), ("[::1]:80", 200)):
        async with browser(app, host) as client:
            assert (await client.get(f"{BASE}/workers")).status_code == status, host
    for host in ("evil.example", "queue.example.org.evil.example", "[::2]"):
        async with browser(app, host) as client:
            response = await client.get(f"{BASE}/workers")
            assert response.status_code == 400, host
            assert "allowed_hosts" in told(response)
            assert (await client.get(f"{BASE}/nothing")).status_code == 400, host


@pytest.mark.parametrize(
    ("headers", "same"),
    [
        ({"sec-fetch-site": "same-origin"}, True),
        ({"sec-fetch-site": "same-site", "origin": "http://x"}, False),
        ({"sec-fetch-site": "cross-site"}, False),
        ({"sec-fetch-site": "none"}, False),
        ({"origin": "http://x:8000"}, True),
        ({"origin": "https://x:8000"}, True),
        ({"origin": "http://x"}, False),
        ({"origin": "http://evil"}, False),
        ({"origin": "null"}, False),
        ({"origin": "http://["}, False),
        ({}, False),
    ],
)
def test_where_a_request_comes_from(headers: dict[str, str], same: bool) -> None:
    from starlette.datastructures import Headers

    assert is_same_origin(Headers({"host": "x:8000", **headers})) is same


async def test_each_answer_has_the_headers_that_guard_it(settings: Settings) -> None:
    app = dashboard(signed_in(), settings=settings)
    nonces = set()
    async with browser(mounted(app)) as client:
        for path in (*map(path_of, routes(app)), f"{BASE}/nothing", f"{BASE}/jobs?x=1"):
            response = await client.get(path)
            policy = response.headers["content-security-policy"]
            assert policy.startswith("default-src 'none'; ")
            assert "frame-ancestors 'none'" in policy
            assert "unsafe" not in policy
            assert response.headers["x-content-type-options"] == "nosniff"
            static = "/static/" in path
            assert response.headers["cache-control"].startswith("private" if static else "no-store"), path
            nonces.add(policy)
    assert len(nonces) == len(routes(app)) + 2, "each answer has a nonce of its own"


async def test_the_page_for_signing_in_links_to_nothing_elsewhere(settings: Settings) -> None:
    async with browser(mounted(closed(settings=settings))) as client:
        page = (await client.get(f"{BASE}/")).text
    assert "http://" not in page.replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert "https://" not in page


async def test_read_only_leaves_no_right_to_change(settings: Settings) -> None:
    app = dashboard(signed_in("admin"), settings=settings, read_only=True)
    async with browser(mounted(app)) as client:
        assert (await client.get(f"{BASE}/workers")).status_code == 200
        for route in routes(app):
            if "POST" in (route.methods or ()):
                assert (await client.post(path_of(route))).status_code == 403, route.path
