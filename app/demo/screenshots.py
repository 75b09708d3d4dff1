"""`python -m app.demo.screenshots DIRECTORY`: pictures of the dashboard while the demonstration runs, and after it."""

import asyncio
import json
import os
import re
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
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
    "operations": "operations",
    "health": "health",
}
"""Workers write their metrics once a minute, and when they stop."""
RECEIPTS = (
    "import asyncio, outbox; from app.jobs import SendReceipt; "
    "asyncio.run(outbox.dispatch_many([SendReceipt(order_id=each) for each in range(240)], queue='receipts'))"
)
OPERATIONS = (
    ("-c", RECEIPTS),
    ("-m", "outbox", "pause", "receipts", "--reason", "the mail server is away"),
    ("-m", "outbox", "bulk", "move", "--queue", "receipts", "--to", "later", "--yes", "--wait"),
    ("-m", "outbox", "resume", "receipts"),
    ("-m", "outbox", "bulk", "cancel", "--queue", "later", "--yes"),
)
"""Commands of an operator, for the page Operations."""
PERSON = {"LOGNAME": "anna"}
HOUR = {("default", "app.ProcessReading"): (90, 2), ("default", "app.SendReceipt"): (40, 5)}
"""What workers have done in each minute of the hour before, by queue and class: completed and failed attempts. The
demonstration is over within a minute."""
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
            await _take(program, address, directory, WHILE_IT_RUNS, lambda page: _at_work(page, address, kept))
            await process.communicate()
        given = {"DATABASE_URL": f"sqlite+aiosqlite:///{await _database_file(kept)}", "OUTBOX_JOBS": "app.jobs"}
        for command in OPERATIONS:
            await _run(*command, **given)
        web = ("-m", "outbox", "web", "--port", "0")
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


async def _run(*arguments: str, **given: str) -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, env=os.environ | given | PERSON)
    if await process.wait():
        raise SystemExit(f"{' '.join(arguments)} ended with {process.returncode}")


async def _database_file(kept: str) -> Path:
    [file] = await asyncio.to_thread(lambda: list(Path(kept).glob("*/demo.db")))
    return file


async def _at_work(page: Page, address: str, kept: str) -> None:
    """Wait for a worker, and let there be metrics of the hour before."""
    await page.goto(f"{address.partition('?')[0]}workers")
    await page.get_by_text("alive").first.wait_for(timeout=WORK_SECONDS)
    await asyncio.to_thread(_write_metrics, await _database_file(kept))


def _write_metrics(file: Path) -> None:
    rows = []
    for minute in range(1, 60):
        for number, ((queue, name), (completed, failed)) in enumerate(HOUR.items()):
            wave = 1 + minute * (number + 3) % 7 / 7
            settled = {"completed": round(completed * wave), "failed": failed * (minute % 5 == 0)}
            slots = {str(12 + each): settled["completed"] // (each + 1) for each in range(6)}
            times = {"buckets": slots, "total": 0.2 * sum(slots.values())}
            data = json.dumps({"settled": settled, "wait": times, "run": times}, separators=(",", ":"))
            rows.append((os.urandom(16), f"-{minute} minutes", queue, name, data))
    with closing(sqlite3.connect(file)) as database, database:
        database.executemany(
            "INSERT INTO queue_metrics (id, period, begins_at, queue, name, data) "
            "VALUES (?, 1, strftime('%Y-%m-%d %H:%M:00.000000', 'now', ?), ?, ?, ?)",
            rows,
        )


Prepare = Callable[[Page], Awaitable[None]]


async def _take(
    program: str, address: str, directory: Path, pages: dict[str, str], prepare: Prepare | None = None
) -> None:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program, args=FLAGS)
        page = await browser.new_page(viewport={"width": 1280, "height": 800})
        # Not by Overview: what it reads of metrics is kept for a while.
        await page.goto(address.replace("?", "workers?", 1))
        base = address.partition("?")[0]
        if prepare is not None:
            await prepare(page)
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
