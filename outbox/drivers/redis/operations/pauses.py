"""Pauses in Redis: of queues, and of all queues of the connection. A key of each queue says so, and may expire."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from outbox.drivers.pauses import Pause, PauseKind, PauseTarget, PauseTerms, check_target
from outbox.drivers.redis.connection.store import Store
from outbox.drivers.redis.keys import PAUSED, QUEUES, key
from outbox.drivers.redis.operations import inspection
from outbox.drivers.redis.operations.workers import Workers
from outbox.drivers.redis.script import command
from outbox.errors import ConfigurationError, InvalidOption

_MILLISECONDS = 1_000


class Pauses:
    """`PauseStore`."""

    def __init__(self, store: Store, workers: Workers, name: str) -> None:
        self._store = store
        self._workers = workers
        self._name = name

    async def pause(self, target: PauseTarget, terms: PauseTerms) -> bool:
        """The connection: the queues that have had jobs, and those that workers drain."""
        self._check(target)
        now = await inspection.now(self._store)
        queues = await self._queues() if target.kind is PauseKind.CONNECTION else [target.name]
        value = json.dumps(
            {"kind": str(target.kind), "reason": terms.reason, "by": terms.by, "at": now.isoformat()},
            ensure_ascii=False,
        )
        ends = _ends(terms, now)
        sets = [command("SET", key(queue, PAUSED), value, *ends, "NX") for queue in queues]
        if not queues:
            raise ConfigurationError(f"the connection {self._name} has no queue to pause: no job, and no worker")
        _, *new = await self._store.do_all([command("SADD", QUEUES, *queues), *sets])
        if not any(new) and terms.changes:
            await self._store.do_all([command("SET", key(queue, PAUSED), value, *ends) for queue in queues])
        return any(new)

    async def resume(
        self,
        target: PauseTarget,
        on_released: Callable[[frozenset[str]], None],  # noqa: ARG002 - a pause keeps no job
    ) -> bool:
        self._check(target)
        if target.kind is PauseKind.QUEUE:
            return bool(await self._store.do(command("DEL", key(target.name, PAUSED))))
        mine = [queue for queue, pause in (await self._stored()).items() if pause.kind is PauseKind.CONNECTION]
        ended = await self._store.do_all([command("DEL", key(queue, PAUSED)) for queue in mine]) if mine else []
        return any(ended)

    async def all(self) -> Sequence[Pause]:
        return sorted(set((await self._stored()).values()), key=lambda pause: (pause.kind, pause.name))

    async def has_key(self, name: str) -> bool:  # noqa: ARG002 - keys are kept by a database
        return False

    def _check(self, target: PauseTarget) -> None:
        if target.kind not in (PauseKind.CONNECTION, PauseKind.QUEUE):
            raise ConfigurationError(
                f"the connection {self._name} keeps its jobs in Redis, where a queue or the whole connection can be "
                f"paused, and no {target.kind}: pause its queue"
            )
        check_target(target)

    async def _queues(self) -> list[str]:
        drained = {queue for worker in await self._workers.all() for queue in worker.queues.split(",") if queue}
        return sorted(drained | set(await self._store.queues()))

    async def _stored(self) -> dict[str, Pause]:
        queues = await self._store.queues()
        if not queues:
            return {}
        now = await inspection.now(self._store)
        values = await self._store.do_all([command("GET", key(queue, PAUSED)) for queue in queues])
        paused = {queue: value for queue, value in zip(queues, values, strict=True) if isinstance(value, bytes)}
        left = await self._store.do_all([command("PTTL", key(queue, PAUSED)) for queue in paused]) if paused else []
        return {
            queue: self._pause(queue, value, None if ms < 0 else now + timedelta(milliseconds=ms))
            for (queue, value), ms in zip(paused.items(), left, strict=True)
        }

    def _pause(self, queue: str, value: bytes, until: datetime | None) -> Pause:
        try:
            said = json.loads(value)
        except ValueError:
            said = None
        said = said if isinstance(said, dict) else {}  # of an older release: no reason
        is_whole = said.get("kind") == PauseKind.CONNECTION
        return Pause(
            PauseKind.CONNECTION if is_whole else PauseKind.QUEUE,
            self._name if is_whole else queue,
            said.get("reason"),
            said.get("by"),
            datetime.fromisoformat(said["at"]) if "at" in said else None,
            None if until is None else until.replace(microsecond=0),
        )


def _ends(terms: PauseTerms, now: datetime) -> tuple[Any, ...]:
    """
    Raises:
        InvalidOption: the end has passed by the clock of the server.
    """
    seconds = terms.seconds if terms.until is None else (terms.until.astimezone(UTC) - now).total_seconds()
    if seconds is None:
        return ()
    if seconds <= 0:
        raise InvalidOption(f"a pause until {terms.until} is over: the server's clock has passed that")
    return "PX", max(1, int(seconds * _MILLISECONDS))
