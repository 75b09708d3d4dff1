"""Plain HTTP requests of tests, without a library that would hide what is on the wire."""

from __future__ import annotations

import asyncio
from urllib.error import HTTPError
from urllib.request import Request, urlopen


def get(url: str, method: str = "GET") -> tuple[int, str]:
    """The status and the body."""
    try:
        with urlopen(Request(url, method=method), timeout=60) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        return error.code, error.read().decode()


async def fetch(url: str) -> tuple[int, str]:
    return await asyncio.to_thread(get, url)


async def fetch_until(url: str, status: int) -> str:
    """Ask until the answer has this status, for 60 s at most. Returns the body."""
    async with asyncio.timeout(60):
        while (answer := await fetch(url))[0] != status:
            await asyncio.sleep(0.05)
    return answer[1]
