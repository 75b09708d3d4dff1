"""What happens, in order: migrate, start the workers, feed, kill one, wait, stop, compare."""

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from rich.console import Console
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from app import db
from app.demo import dashboard, redis, workers
from app.demo.feed import DECLINED_EVERY, feed
from app.demo.ledger import Ledger
from app.demo.mailbox import Mailbox, serve
from app.demo.screen import Screen
from app.demo.table import summary
from app.demo.verdict import effects, judge, stored
from app.demo.witness import Witness
from app.demo.workers import DemoError, Workers
from app.models import Order, Reading
from app.settings import settings
from outbox import Settings, metadata

REPORTS = 12
REPORT_DELAY = timedelta(seconds=3)
REPORT_SECONDS = workers.LEASE + 1.5  # longer than a lease, which a live worker has to extend
KILL_AT = 0.4  # of all jobs
LOOK_EVERY = 0.2  # seconds
SLOWEST_LOOK = 30  # seconds: the relay looks at a row after 10 s, and then whenever its age has doubled
QUEUES = {"mail", "default", "reports"}


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    directory: Path
    orders: int
    readings: int
    timeout: float
    reset: bool
    web: bool


class Scenario:
    """One demonstration, from an empty database to a verdict."""

    def __init__(self, options: Options, console: Console) -> None:
        self.options = options
        self.console = console
        self.ledger = Ledger()
        self.mailbox = Mailbox()
        self.witness = Witness(options.directory / "runs")
        accepted = options.orders - options.orders // DECLINED_EVERY
        self.expected = accepted + options.readings + REPORTS
        self.screen = Screen(
            console,
            {
                "orders placed": accepted,
                "readings stored": options.readings,
                "receipts sent": accepted,
                "readings processed": options.readings,
                "reports drawn": REPORTS,
            },
        )
        self.killed: int | None = None
        self.connection = ""
        self.rows_left = 0
        self.began = time.monotonic()

    @property
    def relayed(self) -> bool:
        """Whether the jobs are rows of the database only until they are moved on."""
        return self.connection == redis.CONNECTION

    async def run(self) -> bool:
        """Play it all; whether the guarantees held. Raises DemoError where it cannot go on."""
        async with serve(self.mailbox) as smtp_port, AsyncExitStack() as servers:
            self._set_environment(smtp_port)
            try:
                self.connection = Settings.load().connection
                if self.relayed:
                    self.screen.say(await servers.enter_async_context(redis.found_or_started(self.options.directory)))
                await self._migrate()
                if self.options.web:
                    self.screen.say(f"dashboard: {await servers.enter_async_context(dashboard.served())}")
                if self.relayed:
                    await self._check_queues()
                exit_code = await self._feed_and_drain()
                return await self._judge(exit_code, time.monotonic() - self.began)
            finally:
                await db.dispose()

    def _set_environment(self, smtp_port: int) -> None:
        """For this process and those that it starts. DATABASE_URL and QUEUE_CONNECTION stay as given."""
        directory = self.options.directory
        self.witness.directory.mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("DATABASE_URL", f"sqlite+aiosqlite:///{directory}/demo.db")
        os.environ.update(
            OUTBOX_JOBS="app.jobs",
            APP_SMTP_HOST="127.0.0.1",
            APP_SMTP_PORT=str(smtp_port),
            APP_REPORTS_DIR=str(directory / "reports"),
            APP_REPORT_SECONDS=str(REPORT_SECONDS),
            APP_RUN_LOG=str(self.witness.directory),
        )
        settings.cache_clear()

    async def _migrate(self) -> None:
        if self.options.reset:
            await workers.run_module("-m", "alembic", "downgrade", "base", seconds=60)
        await workers.run_module("-m", "alembic", "upgrade", "head", seconds=60)
        self.screen.say("alembic upgrade head: the tables are there")
        try:
            async with db.snapshot() as session:
                rows = [await session.scalar(select(func.count(table.id))) for table in (Order, Reading)]
        except SQLAlchemyError as error:
            raise DemoError(f"the database does not answer: {error}") from error
        if any(rows):
            raise DemoError(
                f"this database already holds {rows[0]} orders and {rows[1]} readings, and the demonstration counts "
                "from nothing. Give it another database, or let it drop the tables of this project with --reset."
            )

    async def _check_queues(self) -> None:
        """The workers would run whatever else is there, and it would count as phantom."""
        output = await workers.run_module("-m", "outbox", "stats", "--json", seconds=30)
        states = ("ready", "delayed", "retrying", "reserved")
        rows = [row for row in json.loads(output)["queues"] if row["queue"] in QUEUES]
        left = [row["queue"] for row in rows if any(row[state] for state in states)]
        if left:
            raise DemoError(
                f"this Redis already holds jobs in {', '.join(left)}, and the demonstration counts from nothing. "
                "Give it another REDIS_URL, for example with another number at its end."
            )

    async def _feed_and_drain(self) -> int:
        """The workers' exit code, once everything that was fed is done."""
        log = self.options.directory / "workers.log"
        async with workers.started(log) as running:
            with self.screen.shown():
                async with _in_background(self._feed()) as feeding:
                    await self._watch(running, feeding)
            if self.relayed and self._all_ended():
                await self._see_the_rows_off()
            self.screen.say("stopping the workers with SIGTERM")
            return await running.stop()

    async def _feed(self) -> None:
        wanted = self.options
        await feed(self.ledger, order_count=wanted.orders, reading_count=wanted.readings, report_delay=REPORT_DELAY)

    async def _watch(self, running: Workers, feeding: asyncio.Task[None]) -> None:
        """Until each committed job has ended; half-way, kill a worker."""
        deadline = time.monotonic() + self.options.timeout
        while not self._all_ended():
            if time.monotonic() > deadline:
                self.screen.say(f"[red]not done after {self.options.timeout:.0f} s[/]; the workers' last words:")
                self.screen.say(running.last_words())
                return
            await asyncio.sleep(LOOK_EVERY)
            running.check()
            if feeding.done() and (error := feeding.exception()):
                raise DemoError(f"feeding failed: {error!r}") from error
            self.witness.look()
            self.screen.update(self._done())
            if self.killed is None and len(self.witness.ended) > self.expected * KILL_AT:
                self._kill()

    def _all_ended(self) -> bool:
        return self.ledger.closed and self.ledger.committed.keys() <= self.witness.ended

    async def _see_the_rows_off(self) -> None:
        """A row stays in the database until the relay has seen that its job has ended in Redis."""
        self.screen.say("every job has ended; waiting for the relay to see it, and to remove the last row")
        table = metadata.tables["queue_jobs"]
        deadline = time.monotonic() + (time.monotonic() - self.began) + SLOWEST_LOOK
        while time.monotonic() < deadline:
            async with db.snapshot() as session:
                self.rows_left = await session.scalar(select(func.count()).select_from(table)) or 0
            if not self.rows_left:
                return
            await asyncio.sleep(LOOK_EVERY)

    def _kill(self) -> None:
        """Kill the busiest worker process, without a warning and in the middle of its work."""
        busy = self.witness.busy()
        if len(busy) < workers.PROCESSES:
            return  # the other one has yet to start
        self.killed, jobs = busy.most_common(1)[0]
        os.kill(self.killed, signal.SIGKILL)
        self.screen.say(
            f"[bold red]kill -9 {self.killed}[/]: one of {workers.PROCESSES} workers, in the middle of {jobs} jobs"
        )

    def _done(self) -> dict[str, int]:
        ended = self.witness.ended_by_job
        return {
            "orders placed": self.ledger.counts["orders"],
            "readings stored": self.ledger.counts["readings"],
            "receipts sent": ended["SendReceipt"],
            "readings processed": ended["ProcessReading"],
            "reports drawn": ended["GenerateReport"],
        }

    async def _judge(self, exit_code: int, seconds: float) -> bool:
        self.witness.look()
        rows = await stored()
        seen = effects(rows, self.mailbox, settings().reports_dir)
        verdict = judge(self.ledger, self.witness, seen, self.killed)
        self.console.print(
            summary(rows, self.ledger, self.mailbox, self.witness, verdict, connection=self.connection, seconds=seconds)
        )
        problems = {
            "jobs or their effects were lost": bool(verdict.lost),
            "jobs ran that were never committed": bool(verdict.phantom),
            "readings of a sensor were processed out of order": bool(verdict.out_of_order),
            "jobs ran again for no reason that shows": verdict.unexplained > 0,
            "a second run was added to the daily sums": rows.counted != len(rows.processed),
            f"{self.rows_left} rows are still in the database": self.rows_left > 0,
            "no worker was killed: one of them never came to work": self.killed is None,
            f"the workers ended with exit code {exit_code}": exit_code != 0,
        }
        for problem, found in problems.items():
            if found:
                self.console.print(f"[bold red]{problem}")
        return not any(problems.values())


@asynccontextmanager
async def _in_background(work: Coroutine[Any, Any, None]) -> AsyncIterator[asyncio.Task[None]]:
    """Run `work` beside the block; it does not outlive it."""
    task = asyncio.ensure_future(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
