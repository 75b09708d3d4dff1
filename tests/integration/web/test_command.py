"""``outbox web`` as a process."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from tests.support.commands import run_process
from tests.support.python_process import ROOT

pytestmark = pytest.mark.sqlite

TIMEOUT = 60.0
"""Seconds for an answer of the process, which may have just been started on a busy machine."""


@asynccontextmanager
async def serving(
    directory: Path, *arguments: str, **environment: str
) -> AsyncIterator[tuple[str, asyncio.subprocess.Process]]:
    """The URL that the command prints, and its process."""
    url = f"sqlite+aiosqlite:///{directory}/outbox.db"
    env = os.environ | {"PYTHONPATH": str(ROOT), "DATABASE_URL": url} | environment
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "outbox", "web", "--port", "0", *arguments),
        cwd=directory,
        env=env,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        yield (await process.stdout.readline()).decode().strip(), process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_a_token_opens_the_dashboard_once(tmp_path: Path) -> None:
    async with serving(tmp_path) as (address, process):
        async with (
            httpx.AsyncClient(follow_redirects=True, timeout=TIMEOUT) as first,
            httpx.AsyncClient(follow_redirects=True, timeout=TIMEOUT) as second,
        ):
            bare = address.partition("?")[0]
            assert (await second.get(bare)).status_code == 401
            assert (await second.get(bare + "?token=guess")).status_code == 401
            opened = await first.get(address)
            # The tables are not there: the page says so, to a person who is signed in.
            assert opened.status_code == 503
            assert "alembic upgrade head" in opened.text
            assert "token" not in str(opened.url)
            assert (await first.get(bare + "nothing")).status_code == 404
            assert (await second.get(address)).status_code == 401
            again = await first.get(address)
            assert (str(again.url), again.status_code) == (bare, 503), "the browser that it was for is still signed in"
        process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.wait(), TIMEOUT)


async def test_a_name_that_another_site_points_here_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path) as (address, _), httpx.AsyncClient(timeout=TIMEOUT) as client:
        assert (await client.get(address, headers={"host": "evil.example"})).status_code == 400
        assert (await client.get(address)).status_code == 303, "the token was not used up"


async def test_a_user_and_a_password_from_the_environment(tmp_path: Path) -> None:
    given = {"OUTBOX_WEB_USER": "ada", "OUTBOX_WEB_PASSWORD": "secret"}
    async with serving(tmp_path, **given) as (address, _), httpx.AsyncClient(timeout=TIMEOUT) as client:
        assert "token" not in address
        assert (await client.get(address)).status_code == 401
        assert (await client.get(address, auth=("ada", "secret"))).status_code == 503


async def test_other_machines_need_a_password(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/outbox.db"
    ran = await run_process(tmp_path, "web", "--host", "0.0.0.0", DATABASE_URL=url)
    assert ran.code == 2
    assert "can be reached from other machines" in ran.err
    ran = await run_process(tmp_path, "web", "--user", "ada", DATABASE_URL=url)
    assert ran.code == 2
    assert "closed by default" in ran.err


async def test_a_port_in_use_is_said(tmp_path: Path) -> None:
    async with serving(tmp_path) as (address, _):
        port = address.partition("?")[0].rpartition(":")[2].strip("/")
        ran = await run_process(
            tmp_path, "web", "--port", port, DATABASE_URL=f"sqlite+aiosqlite:///{tmp_path}/outbox.db"
        )
        assert ran.code == 2
        assert "choose another --port" in ran.err
