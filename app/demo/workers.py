"""The workers, as an operator would start them: one command, two processes."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

PROCESSES = 2
LEASE = 5  # seconds: short, so that a dead worker's jobs are soon claimed by another
GRACE = 20  # seconds
COMMAND = (
    *("-m", "outbox.work", "--queue", "mail,default,reports", "--processes", str(PROCESSES)),
    *("--concurrency", "50", "--lease", str(LEASE), "--grace", str(GRACE), "--sleep", "0.5"),
)


class DemoError(Exception):
    """The demonstration cannot go on; the message is for the person who started it."""


async def run_module(*arguments: str, seconds: float) -> str:
    """Run `python …` to its end and give its output; raises DemoError with it if it fails or takes too long."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(seconds):
            output, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise DemoError(f"{_shown(arguments)} took more than {seconds:.0f} s") from None
    text = output.decode(errors="replace")
    if process.returncode:
        raise DemoError(f"{_shown(arguments)} failed:\n{_end(text)}")
    return text


class Workers:
    """The running supervisor, of which the worker processes are children."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._log = log

    @property
    def pid(self) -> int:
        return self._process.pid

    def check(self) -> None:
        """Raises DemoError if the supervisor is gone."""
        if self._process.returncode is not None:
            raise DemoError(f"the workers ended by themselves:\n{self.last_words()}")

    async def stop(self) -> int:
        """Stop as an operator would, with SIGTERM, and give the exit code."""
        self._process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(GRACE + 10):
                return await self._process.wait()
        except TimeoutError:
            raise DemoError(f"the workers did not stop on SIGTERM:\n{self.last_words()}") from None

    def last_words(self) -> str:
        return last_lines(self._log)


@asynccontextmanager
async def started(log: Path) -> AsyncIterator[Workers]:
    """Start the workers; whatever happens in the block, none of them outlives it."""
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *COMMAND,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,  # a group of its own, to be killed as one if all else fails
        )
    try:
        yield Workers(process, log)
    finally:
        with suppress(ProcessLookupError):  # all of them have ended, as they should
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def last_lines(log: Path) -> str:
    return _end(log.read_text(encoding="utf-8", errors="replace"))


def _end(text: str, lines: int = 8) -> str:
    return "\n".join(text.rstrip().splitlines()[-lines:])


def _shown(arguments: Sequence[str]) -> str:
    return " ".join(("python", *arguments))
