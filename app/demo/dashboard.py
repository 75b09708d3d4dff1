"""The dashboard beside the demonstration, in a process of its own."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.demo.workers import DemoError

START_SECONDS = 30


@asynccontextmanager
async def served() -> AsyncIterator[str]:
    """The address of `outbox web`, which ends with the block. Raises DemoError where it does not start."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "outbox", "web", "--port", "0"), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None  # noqa: S101 - a pipe was asked for
    try:
        async with asyncio.timeout(START_SECONDS):
            address = (await process.stdout.readline()).decode().strip()
        if not address:
            raise DemoError("the dashboard did not start: pip install 'outbox-queue[web]'")
        yield address
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
