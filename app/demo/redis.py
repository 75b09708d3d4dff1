"""The Redis of the demonstration: the one that REDIS_URL names, or one that is started for it and ends with it."""

import asyncio
import os
import shutil
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from app.demo.workers import DemoError, last_lines
from outbox import Settings

CONNECTION = "redis"
PROGRAMS = ("redis-server", "valkey-server")
START_SECONDS = 10


@asynccontextmanager
async def found_or_started(directory: Path) -> AsyncIterator[str]:
    """Set REDIS_URL, for this process and those that it starts; gives a line that says which Redis it is.

    Raises DemoError if there is none.
    """
    if Settings.load().redis_url is not None:
        yield "the Redis of REDIS_URL"
        return
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        raise DemoError(
            "the connection redis needs a Redis: install Redis 7 or later (redis-server) or Valkey 8 or later, or name "
            "one that runs: REDIS_URL=redis://host:6379/0"
        )
    port = _free_port()
    async with _running(program, port, directory):
        os.environ["REDIS_URL"] = f"redis://127.0.0.1:{port}/0"
        yield f"{Path(program).name} on port {port}, appendonly yes"


@asynccontextmanager
async def _running(program: str, port: int, directory: Path) -> AsyncIterator[None]:
    data, log = directory / "redis", directory / "redis.log"
    data.mkdir()
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            program,
            *("--bind", "127.0.0.1", "--port", str(port), "--dir", str(data)),
            *("--appendonly", "yes", "--appendfsync", "everysec", "--save", ""),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for the demonstration, which still needs it to stop in order
        )
    try:
        await _answers(process, port, log)
        yield
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(START_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


async def _answers(process: asyncio.subprocess.Process, port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not await _pong(port):
        if process.returncode is not None or time.monotonic() > deadline:
            raise DemoError(f"redis-server did not start:\n{last_lines(log)}")
        await asyncio.sleep(0.05)


async def _pong(port: int) -> bool:
    try:
        async with asyncio.timeout(1):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(b"PING\r\n")
                return await reader.readline() == b"+PONG\r\n"
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
