"""`python -m app.demo.screenshots DIRECTORY`: pictures of the dashboard while the demonstration runs."""

import asyncio
import re
import shutil
import sys
import tempfile
from pathlib import Path

from playwright.async_api import Page, async_playwright

SIZE = ("--orders", "300", "--readings", "4000")
START_SECONDS = 120
WORK_SECONDS = 60_000  # milliseconds, in which a worker has to be seen
METRICS_SECONDS = 120_000
PAGES = {
    "overview": "",
    "queues": "queues",
    "queue": "queues/default",
    "jobs": "jobs",
    "failures": "failures",
    "classes": "classes",
    "class": "classes/one?name=app.ProcessReading",
    "dispatch": "classes/dispatch?name=app.ProcessReading",
    "workers": "workers",
    "schedules": "schedules",
    "keys": "keys",
    "batches": "batches",
    "health": "health",
}
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


async def main(directory: Path) -> int:
    """0 if there are pictures of all pages."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        print("there is no Chromium here: apt-get install chromium", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as kept:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "app.demo", "--web", *SIZE, "--dir", kept), stdout=asyncio.subprocess.PIPE
        )
        try:
            async with asyncio.timeout(START_SECONDS):
                address = await _address(process)
            await _take(program, address, directory)
        finally:
            await process.communicate()
    return 0


async def _address(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None  # noqa: S101 - a pipe was asked for
    while line := (await process.stdout.readline()).decode():
        if found := re.search(r"dashboard: (\S+)", line):
            return found[1]
    raise SystemExit("the demonstration ended before it served a dashboard")


async def _take(program: str, address: str, directory: Path) -> None:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program, args=FLAGS)
        page = await browser.new_page(viewport={"width": 1280, "height": 800})
        await page.goto(address)
        base = address.partition("?")[0]
        await page.goto(f"{base}workers")
        await page.get_by_text("alive").first.wait_for(timeout=WORK_SECONDS)
        # Workers write their metrics once a minute.
        await page.goto(f"{base}classes")
        await page.locator("svg.spark").first.wait_for(timeout=METRICS_SECONDS)
        for theme in ("light", "dark"):
            await page.emulate_media(color_scheme=theme)  # type: ignore[arg-type,unused-ignore]
            await _pictures(page, base, directory, theme)
        await browser.close()


async def _pictures(page: Page, base: str, directory: Path, theme: str) -> None:
    for name, path in PAGES.items():
        await page.goto(base + path)
        await page.screenshot(path=directory / f"{name}-{theme}.png")


if __name__ == "__main__":
    pictures = Path(sys.argv[1])
    pictures.mkdir(parents=True, exist_ok=True)
    sys.exit(asyncio.run(main(pictures)))
