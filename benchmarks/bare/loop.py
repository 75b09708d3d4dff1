"""What a bare loop does, whatever its database."""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence

from benchmarks.job_counters import Counters

Row = tuple[bytes, str]
"""Id and payload."""

_EMPTY_LOOKS = 3


class Loop(ABC):
    """Batch after batch until there is nothing left. With ``joined``, the end of one batch and the claim of the next
    are one transaction, and a batch costs one commit; without, two, as a worker that claims while others end."""

    def __init__(self, counters: Counters, *, batch: int, joined: bool) -> None:
        self.batch = batch
        self._counters = counters
        self._joined = joined

    async def run(self) -> None:
        await self.connect()
        done: list[bytes] = []
        empty = 0
        while empty < _EMPTY_LOOKS:
            if done:
                await self.delete(done)
                if not self._joined:
                    await self.commit()
            rows = await self.claim()
            await self.commit()
            tasks = [asyncio.create_task(self._work(payload)) for _, payload in rows]
            if tasks:
                await asyncio.wait(tasks)
            done = [row[0] for row in rows]
            empty = 0 if rows else empty + 1
        await self.close()

    async def _work(self, payload: str) -> None:
        json.loads(payload)
        self._counters.count()

    @abstractmethod
    async def connect(self) -> None: ...

    @abstractmethod
    async def claim(self) -> Sequence[Row]:
        """Take up to ``batch`` jobs, for 30 seconds."""

    @abstractmethod
    async def delete(self, ids: Sequence[bytes]) -> None: ...

    @abstractmethod
    async def commit(self) -> None: ...

    @abstractmethod
    async def close(self) -> None: ...
