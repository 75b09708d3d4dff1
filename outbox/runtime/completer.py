"""Writes the ends of attempts to the store, in batches."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from itertools import count

from outbox import clock
from outbox.drivers.values import PolicyNews, Settled
from outbox.errors import BackendUnavailable
from outbox.events import (
    ChainAdvanced,
    ChainEnded,
    Event,
    Events,
    JobCancelled,
    JobSettled,
    LeaseLost,
    SettlementRefused,
    SettlementsAbandoned,
)
from outbox.middleware.chain_steps import ChainSteps
from outbox.runtime.availability import SETTLE, Availability, ReconnectBackoff
from outbox.runtime.execution.attempt import Attempt
from outbox.runtime.postponed_settlements import PostponedSettlements
from outbox.runtime.service import BackgroundLoop
from outbox.runtime.store_client import StoreClient
from outbox.settlement import ENDS, Failure, MoveRates, Outcome, Settlement

MAX_BATCH = 500

MAX_BACKLOG = 2_000
"""Ended attempts that may wait for a slow store before claiming waits for them."""

_TOO_LATE = "its end came too late: the job has another owner"


class Completer(BackgroundLoop):
    """While one batch is being written, the next one gathers: no job waits for company, and under load batches grow by
    themselves. Settlements are written in the order in which attempts ended.

    A store that does not answer is asked again until it does; nothing is dropped. When the worker stops meanwhile, it
    is asked for one more lease: what is written later would find the jobs with other owners anyway.

    One end that keeps its batch from being written, while the store carries out all else, is postponed, so that the
    others are written.
    """

    def __init__(
        self,
        store: StoreClient,
        availability: Availability,
        events: Events,
        *,
        lease: float,
        on_accepted: Callable[[Sequence[Attempt]], None],
        on_cancelled: Callable[[Attempt], None] = lambda _: None,
        on_policy_news: Callable[[PolicyNews], None] = lambda _: None,
    ) -> None:
        super().__init__()
        self._store = store
        self._in_flight = store.in_flight
        self._availability = availability
        self._events = events
        self._lease = lease
        self._on_accepted = on_accepted
        self._on_cancelled = on_cancelled
        self._on_policy_news = on_policy_news
        self._pending: deque[Attempt] = deque()
        self._writing = 0
        self._awaited = 0
        """Ended attempts, of those pending, that no claim may come before."""
        self._wanted = asyncio.Event()
        self._caught_up = asyncio.Event()
        self._caught_up.set()
        self._give_up_at: float | None = None
        self.postponed = PostponedSettlements(self._isolate, events)

    @property
    def backlog(self) -> int:
        """Attempts that have ended and are not in the store yet."""
        return len(self._pending) + self._writing

    def submit(self, attempt: Attempt) -> None:
        """Take over an ended attempt that has a settlement."""
        self._pending.append(attempt)
        self._wanted.set()
        awaited = _is_awaited(attempt)
        if awaited:
            self._awaited += 1
        if (awaited or len(self._pending) >= MAX_BACKLOG) and not self.stopping:
            self._caught_up.clear()

    def committed(self, attempt: Attempt, settled: Settled) -> None:
        """Report an attempt whose end is in the store already, with a transaction of its job."""
        self._in_flight.discard([attempt])
        attempt.settlement = settled.accepted[0]
        self._report_accepted([attempt], settled.news)

    @property
    def is_caught_up(self) -> bool:
        """Whether jobs may be claimed. Before, a claim could take what has ended here, which counts one more attempt.
        It could take a job whose rate limit was refused here and admits nothing any more."""
        return self._caught_up.is_set()

    async def caught_up(self) -> None:
        """Return once `is_caught_up`, or with `release_claims`."""
        await self._caught_up.wait()

    def release_claims(self) -> None:
        """End the waits for `caught_up`, which a store that does not answer makes as long as its outage: a claimer is
        to stop, or to pause."""
        if not self.is_caught_up:
            self._caught_up.set()
            self._caught_up.clear()

    async def run(self) -> None:
        while self._pending or not self.stopping or self.postponed.waits:
            await self.postponed.retry()
            if not self._pending:
                await self._wait()
                continue
            batch = [self._pending.popleft() for _ in range(min(len(self._pending), MAX_BATCH))]
            self._writing = len(batch)
            awaited = sum(map(_is_awaited, batch)) if self._awaited else 0
            try:
                await self._write(batch)
            except BackendUnavailable:
                self._abandon([*batch, *self._pending])
            self._writing = 0
            if awaited:
                self._awaited -= awaited
                self._resume_claims()
        self._abandon(self.postponed.give_up())

    async def _wait(self) -> None:
        """For an end to write, or for the next try of those that were postponed."""
        if self.stopping and self.postponed.waits:
            await asyncio.sleep(min(1.0, self.postponed.due_in or 0.0))
            if self._out_of_time:
                self._abandon(self.postponed.give_up())
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(self.postponed.due_in):
                await self._wanted.wait()
        self._wanted.clear()

    @property
    def _out_of_time(self) -> bool:
        return self._give_up_at is not None and clock.now() >= self._give_up_at

    async def stop(self) -> None:
        if self._give_up_at is None:
            self._give_up_at = clock.now() + self._lease
        await super().stop()

    def interrupt(self) -> None:
        self._wanted.set()
        self.release_claims()

    async def _write(self, batch: list[Attempt]) -> None:
        """Until the store takes the batch.

        Raises:
            BackendUnavailable: still, although the worker has been stopping for a while.
        """
        backoff, turns = ReconnectBackoff(), count()
        failing_since: float | None = None
        while True:
            begun = clock.now()
            try:
                settled = await self._store.settle(_settlements(batch))
            except BackendUnavailable as error:
                self._availability.failed(begun, error, SETTLE)
                if self._out_of_time:
                    raise
                if failing_since is not None and await self._is_about_one(batch, failing_since, turns):
                    await self._isolate(batch)
                    return
                failing_since = failing_since or begun
                if not self.stopping:
                    self._caught_up.clear()
                await self._retry_pause(backoff.next())
            except Exception as error:  # noqa: BLE001 - one that the store refuses must not take the others with it
                await self._refuse_or_split(batch, error, self._write)
                return
            else:
                await self._written(begun, batch, settled)
                return

    async def _is_about_one(self, batch: list[Attempt], since: float, turns: Iterator[int]) -> bool:
        """Whether one end keeps the others of the batch from being written: the store carries out other requests, and
        takes one of the batch alone. Each is tried in turn, since the one at fault may be among the first."""
        if not self._availability.answers_others(since, SETTLE):
            return False
        if len(batch) == 1:
            return bool(self._pending)
        probe = batch[next(turns) % len(batch)]
        begun = clock.now()
        try:
            settled = await self._store.settle(_settlements([probe]))
        except Exception:  # noqa: BLE001 - it is tried again, with the others
            return False
        batch.remove(probe)
        await self._written(begun, [probe], settled)
        return True

    async def _isolate(self, batch: list[Attempt]) -> None:
        """Write all that the store takes. An end that it refuses alone is postponed, and tried again by itself."""
        begun = clock.now()
        try:
            settled = await self._store.settle(_settlements(batch))
        except Exception as error:  # noqa: BLE001 - sorted below
            if isinstance(error, BackendUnavailable) and len(batch) == 1:
                self.postponed.add(batch[0], error)
            else:
                await self._refuse_or_split(batch, error, self._isolate)
        else:
            await self._written(begun, batch, settled)

    async def _refuse_or_split(
        self, batch: list[Attempt], error: Exception, write: Callable[[list[Attempt]], Awaitable[None]]
    ) -> None:
        if len(batch) == 1:
            self._refused(batch[0], error)
        else:
            middle = len(batch) // 2
            await write(batch[:middle])
            await write(batch[middle:])

    async def _written(self, begun: float, batch: list[Attempt], settled: Settled) -> None:
        self._availability.succeeded(begun, SETTLE)
        self._resume_claims()
        self._in_flight.discard(batch)
        await self._report(batch, settled)

    def _resume_claims(self) -> None:
        if len(self._pending) < MAX_BACKLOG and not self._awaited:
            self._caught_up.set()

    async def _retry_pause(self, seconds: float) -> None:
        """Also while stopping, when ``pause`` would return at once."""
        if await self.pause(seconds):
            await asyncio.sleep(min(seconds, 1.0))

    async def _report(self, batch: list[Attempt], settled: Settled) -> None:
        stale = {settlement.fence for settlement in settled.stale}
        accepted = [attempt for attempt in batch if attempt.fence not in stale] if stale else batch
        if stale:
            late = [attempt for attempt in batch if attempt.fence in stale]
            # Told already where the store was out of reach.
            late = [attempt for attempt in late if not _may_be_claimed(attempt)]
            removed = await self._store.removed(late)
            for attempt in late:
                cancelled = attempt in removed
                self._events.emit(attempt.event(JobCancelled) if cancelled else attempt.event(LeaseLost, _TOO_LATE))
                if cancelled:
                    self._on_cancelled(attempt)
        self._report_accepted(accepted, settled.news)

    def _report_accepted(self, accepted: Sequence[Attempt], news: PolicyNews) -> None:
        if self._events.wants(JobSettled):
            self._events.emit_all([_event(attempt, end) for attempt in accepted if (end := attempt.settlement)])
        self._on_accepted(accepted)
        for attempt in accepted:
            if attempt.chain is not None and (event := _chain_event(attempt, attempt.chain)) is not None:
                self._events.emit(event)
        if news:
            self._on_policy_news(news)

    def _refused(self, attempt: Attempt, error: Exception) -> None:
        self._availability.unneeded(SETTLE)
        self._in_flight.discard([attempt])
        if attempt.settlement is not None:
            self._events.emit(attempt.event(SettlementRefused, attempt.settlement.outcome, Failure.of(error)))

    def _abandon(self, attempts: list[Attempt]) -> None:
        if not attempts:
            return
        unwritten = [attempt for attempt in attempts if attempt in self._in_flight]
        self._in_flight.discard(unwritten)
        self._pending.clear()
        job_ids = tuple(attempt.fence.job_id for attempt in unwritten)
        self._events.emit(SettlementsAbandoned(self._store.connection, job_ids))


def _settlements(batch: Sequence[Attempt]) -> list[Settlement]:
    return [attempt.settlement for attempt in batch if attempt.settlement is not None]


def _is_awaited(attempt: Attempt) -> bool:
    """Whether claims wait for this end."""
    end = attempt.settlement
    moves_rates = end is not None and end.effects and any(isinstance(effect, MoveRates) for effect in end.effects)
    return bool(moves_rates) or _may_be_claimed(attempt)


def _may_be_claimed(attempt: Attempt) -> bool:
    """Whether the lease may have ended before the attempt did."""
    return attempt.interruption is not None and attempt.interruption.loses_lease


def _chain_event(attempt: Attempt, chain: ChainSteps) -> Event | None:
    """What an accepted settlement means for the chain of its job."""
    end = attempt.settlement
    if end is None or chain.caught or end.outcome not in ENDS:
        return None
    if end.outcome is Outcome.COMPLETED and chain.rest:
        following = end.inserted[0]
        return ChainAdvanced(chain.id, chain.number + 1, following.id, following.name, following.queue)
    return ChainEnded(chain.id, chain.number, end.outcome)


def _event(attempt: Attempt, end: Settlement) -> JobSettled:
    return attempt.event(JobSettled, end.outcome, attempt.seconds, end.delay, end.failure)
