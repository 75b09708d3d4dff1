"""Jobs that hold something encrypted, for those who encrypt it with another key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from outbox.drivers.base import Rewrite
from outbox.drivers.redis.connection.store import Store
from outbox.drivers.redis.keys import FAILURES, JOBS, PARKED, key
from outbox.drivers.redis.script import Script, command
from outbox.drivers.values import RewrittenTexts
from outbox.encryption import MARK

_REWRITE = Script("rewrite", returns=int)
_PER_SCAN = 100
_MARK = MARK.encode()


class EncryptedHashes:
    """`EncryptedTexts`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def rewrite(self, rewrite: Rewrite) -> RewrittenTexts:
        done = RewrittenTexts()
        for queue in await self._store.queues():
            # In the order in which a job moves from one to the next.
            for suffix in (PARKED, JOBS, FAILURES):
                done += await self._rewrite(key(queue, suffix), rewrite)
        return done

    async def _rewrite(self, name: str, rewrite: Rewrite) -> RewrittenTexts:
        done = RewrittenTexts()
        cursor = 0
        while True:
            answer = await self._store.do(command("HSCAN", name, cursor, "COUNT", _PER_SCAN))
            cursor = int(answer[0])
            changed = {
                field: (value, new)
                for field, value in _pairs(answer[1])
                if _MARK in value and (new := _rewritten(value, rewrite)) != value
            }
            if changed:
                words = [word for field, values in changed.items() for word in (field, *values)]
                busy = await self._store.do(_REWRITE([name], *words))
                done += RewrittenTexts(len(changed) - busy, busy)
            if cursor == 0:
                return done


def _rewritten(value: bytes, rewrite: Rewrite) -> bytes:
    # Bytes of another program, which may be no UTF-8, stay as they are: what is encrypted is ASCII.
    return rewrite(value.decode("latin-1")).encode("latin-1")


def _pairs(page: Any) -> list[tuple[bytes, bytes]]:
    if isinstance(page, Mapping):
        return list(page.items())
    return list(zip(page[::2], page[1::2], strict=True))
