"""`python -m app.demo.screenshots DIRECTORY`: pictures of the dashboard while the demonstration runs, and after it."""

import asyncio
import os
import re
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from playwright.async_api import Page, async_playwright

SIZE = ("--orders", "300", "--readings", "4000")
START_SECONDS = 120
WORK_SECONDS = 60_000  # milliseconds, in which a worker has to be seen
WHILE_IT_RUNS = {"overview": "", "queues": "queues", "jobs": "jobs", "failures": "failures", "workers": "workers"}
AFTERWARDS = {
    "queue": "queues/default",
    "classes": "classes",
    "class": "classes/one?name=app.ProcessReading",
    "dispatch": "classes/dispatch?name=app.ProcessReading",
    "schedules": "schedules",
    "keys": "keys",
    "batches": "batches",
    "health": "health",
}
"""Workers write their metrics once a minute, and when they stop."""
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


async def main(directory: Path) -> int:
    """0 if there are pictures of all pages."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        print("there is no Chromium here: apt-get install chromium", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as kept:
        demo = ("-m", "app.demo", "--web", *SIZE, "--dir", kept)
        async with _serving(*demo, says=r"dashboard: (\S+)") as (process, address):
            await _take(program, address, directory, WHILE_IT_RUNS, wait_for="alive")
            await process.communicate()
        [database] = await asyncio.to_thread(lambda: list(Path(kept).glob("*/demo.db")))
        web = ("-m", "outbox", "web", "--port", "0")
        given = {"DATABASE_URL": f"sqlite+aiosqlite:///{database}", "OUTBOX_JOBS": "app.jobs"}
        async with _serving(*web, says=r"(http\S+)", **given) as (process, address):
            await _take(program, address, directory, AFTERWARDS)
            process.terminate()
    return 0


@asynccontextmanager
async def _serving(*arguments: str, says: str, **given: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """A process, and the address that it says."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, stdout=asyncio.subprocess.PIPE, env=os.environ | given
    )
    try:
        async with asyncio.timeout(START_SECONDS):
            address = await _address(process, says)
        yield process, address
    finally:
        await process.communicate()


async def _address(process: asyncio.subprocess.Process, says: str) -> str:
    assert process.stdout is not None  # noqa: S101 - a pipe was asked for
    while line := (await process.stdout.readline()).decode():
        if found := re.search(says, line):
            return found[1]
    raise SystemExit("the process ended before it served a dashboard")


async def _take(program: str, address: str, directory: Path, pages: dict[str, str], wait_for: str = "") -> None:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program, args=FLAGS)
        page = await browser.new_page(viewport={"width": 1280, "height": 800})
        await page.goto(address)
        base = address.partition("?")[0]
        if wait_for:
            await page.goto(f"{base}workers")
            await page.get_by_text(wait_for).first.wait_for(timeout=WORK_SECONDS)
        for theme in ("light", "dark"):
            await page.emulate_media(color_scheme=theme)  # type: ignore[arg-type,unused-ignore]
            await _pictures(page, base, directory, theme, pages)
        await browser.close()


async def _pictures(page: Page, base: str, directory: Path, theme: str, pages: dict[str, str]) -> None:
    for name, path in pages.items():
        await page.goto(base + path)
        await page.screenshot(path=directory / f"{name}-{theme}.png")


if __name__ == "__main__":
    pictures = Path(sys.argv[1])
    pictures.mkdir(parents=True, exist_ok=True)
    sys.exit(asyncio.run(main(pictures)))
