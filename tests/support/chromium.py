"""Debian's Chromium, and a dashboard that it opens."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from playwright.async_api import Browser, BrowserContext, async_playwright, expect
from starlette.types import ASGIApp

TIMEOUT = 120_000.0
"""Milliseconds for what takes a few, unless the machine is busy."""
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


def program() -> str:
    """Where Chromium is; without it the test is skipped, as those without a server are."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    return found


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program(), args=FLAGS, timeout=TIMEOUT)
        expect.set_options(timeout=TIMEOUT)
        try:
            yield browser
        finally:
            await browser.close()


async def new_context(browser: Browser, **options: Any) -> BrowserContext:
    """One whose pages wait for as long as a busy machine needs."""
    context = await browser.new_context(**options)
    context.set_default_timeout(TIMEOUT)
    return context


@asynccontextmanager
async def served(app: ASGIApp) -> AsyncIterator[str]:
    """The address of an application that uvicorn serves in this event loop."""
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_level="warning", lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving
        listening.close()
