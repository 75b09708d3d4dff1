"""Moves committed jobs from the database to the connection that they are for.

The row stays in the database until the job has ended over there, and is looked at again from time to time, ever more
rarely: a store that lost the job, because it was flushed or restored from an older state, is given it once more.

A job with a delay is moved at once, too, with what is left of the delay by the database's clock; the other store counts
that down by its own. No clock is compared with another, and no relay has to look at the database when the delay ends.
The next look at such a row is after that, or a day later: until then there is little to see.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial

from outbox import clock
from outbox.drivers.base import Driver, RelaySource, RelayTarget
from outbox.drivers.values import Claim, Settled
from outbox.envelope import Envelope
from outbox.errors import BackendUnavailable, ConfigurationError, InvalidPayload
from outbox.ids import JobId
from outbox.relay.route import from_relay_row, relay_queue
from outbox.settlement import Failure, LeavePolicies, MoveRates, Outcome, Settlement

BATCH = 500

_LEASE = 15.0
AGAIN_AFTER = 1.0
"""Seconds until rows are tried again that the other store could not take."""

FIRST_LOOK, LONGEST_LOOK = 10.0, 3600.0
"""Seconds until a row is looked at whose job was accepted; each further look comes twice as late as the one before."""

_LONGEST_WAIT = 86_400.0
"""Seconds after which a row is looked at although its job still waits for its delay. Redis forgets what it was given
after 30 days without a look (`insert_once.lua`). It would then take a job that has ended for a new one."""


class Relay:
    """Any number of them may run, in any processes: rows are claimed as jobs are, and a repeated move of the same id
    makes no second job."""

    def __init__(self, source: Driver, target: Driver, connection: str) -> None:
        """
        Raises:
            ConfigurationError: the driver of one of the two cannot be relayed from, or to.
        """
        self.queue = relay_queue(connection)
        rows, relayed = source.relay_source, target.relay_target
        if rows is None or relayed is None:
            raise ConfigurationError(f"jobs cannot be relayed from {source.name} to {connection}: a driver lacks it")
        self.source = source
        self._rows: RelaySource = rows
        self._target = target
        self._relayed: RelayTarget = relayed
        self._at_once = BATCH
        self._refused: list[MoveRates] = []
        self._replaced: list[JobId] = []
        """Jobs over there whose place others have got."""
        self._fit = False
        """Whether the target is what outbox needs. What it was before an outage, it need not be after it."""

    async def move(self) -> int:
        """Move one batch, in the order of dispatch; return how many rows there were.

        Raises:
            BackendUnavailable: one of the two stores does not answer. What was claimed is tried again.
            ConfigurationError: one of them is not what outbox needs. The same.
        """
        claims = await self.source.jobs.claim([self.queue], self._at_once, _LEASE)
        if claims:
            self._replaced += [job_id for claim in claims for job_id in claim.replaces]
            try:
                if not self._fit:
                    await self._target.check()
                    self._fit = True
                await self._move(claims)
            except (BackendUnavailable, ConfigurationError):
                self._fit = False
                await self._settle([_put_back(claim) for claim in claims])
                raise
            # What takes longer than its hold lasts is moved in smaller batches, so that it is moved at all.
            self._at_once = max(1, len(claims) // 2) if _too_late(claims) else min(BATCH, 2 * self._at_once)
        return len(claims)

    async def remove_ended(self) -> int:
        """Remove the rows of jobs that have ended in the target; return how many there were. The row of an end that is
        lost on the way is found by a later look.

        Raises:
            BackendUnavailable: one of the two stores does not answer.
        """
        removed = 0
        while ended := await self._relayed.take_ended():
            gone = await self._rows.end_relayed(list(ended), partial(self._outcomes, ended))
            await self._relayed.forget_accepted({job_id: ended[job_id] for job_id in gone})
            removed += len(gone)
        return removed

    def note_refused(self, refused: Sequence[MoveRates]) -> None:
        """For the next `move_rates`. From any thread."""
        self._refused.extend(refused)

    async def move_rates(self) -> None:
        """Have the rates of jobs that a service has refused over there admit nothing for so many seconds.

        Raises:
            BackendUnavailable: the database does not answer. The next call tries it again.
        """
        noted = list(self._refused)
        if noted and self.source.limits is not None:
            await self.source.limits.move(noted)
        del self._refused[: len(noted)]

    async def has_unrelayed(self) -> bool:
        """Whether the target may lack a job."""
        return await self._rows.has_unrelayed(self.queue)

    async def _move(self, claims: Sequence[Claim]) -> None:
        settlements: list[Settlement] = []
        envelopes: list[Envelope] = []
        readable: list[Claim] = []
        for claim in claims:
            try:
                envelopes.append(from_relay_row(claim))
                readable.append(claim)
            except InvalidPayload as error:
                settlements.append(_leaving(claim, Settlement.failed(claim.fence, Failure.of(error))))
        envelopes = await self._from_now(envelopes)
        if _too_late(claims):
            # Others may have moved these jobs, seen them end, and removed their rows: the other store could not tell
            # them from new ones for ever.
            return
        await self._stop_replaced()
        ended = await self._relayed.insert_once(envelopes) if envelopes else frozenset[JobId]()
        gated = {
            envelope.id: envelope.queue
            for claim, envelope in zip(readable, envelopes, strict=True)
            if claim.policies is not None and envelope.id in ended
        }
        outcomes = await self._relayed.outcomes(gated) if gated else {}
        for claim, envelope in zip(readable, envelopes, strict=True):
            if claim.fence.job_id in ended:
                settlements.append(_ended(claim, outcomes.get(claim.fence.job_id, Outcome.CANCELLED)))
            else:
                settlements.append(Settlement.released(claim.fence, next_look(claim.attempt, envelope.delay)))
        settled = await self._settle(settlements)
        # Only when the rows are gone: until then the other store must know that it had these jobs. The row of a refused
        # settlement is there: another relay has it since the hold on it ran out.
        gone = ended & {settlement.fence.job_id for settlement in settled.accepted}
        await self._relayed.forget_accepted(
            {envelope.id: envelope.queue for envelope in envelopes if envelope.id in gone}
        )

    async def _stop_replaced(self) -> None:
        """Before what replaces them is there. After an outage, they are stopped with the next batch."""
        if self._replaced:
            await self._target.jobs.cancel(self._replaced)
            self._replaced.clear()

    async def _settle(self, settlements: Sequence[Settlement]) -> Settled:
        settled = await self.source.jobs.settle(settlements)
        if settled.news and self.source.policies is not None:
            self.source.policies.on_news(settled.news)
        return settled

    async def _outcomes(self, queues: Mapping[JobId, str], job_ids: Collection[JobId]) -> Mapping[JobId, Outcome]:
        """How these jobs with policies have ended; one that an operator has removed over there is cancelled."""
        known = await self._relayed.outcomes({job_id: queues[job_id] for job_id in job_ids})
        return {job_id: known.get(job_id, Outcome.CANCELLED) for job_id in job_ids}

    async def _from_now(self, envelopes: list[Envelope]) -> list[Envelope]:
        """The same jobs, with delays that count from now."""
        delayed = [envelope.id for envelope in envelopes if envelope.delay or envelope.available_at is not None]
        if not delayed:
            return envelopes
        written, now = await self._rows.written(delayed), await self.source.now()
        return [
            envelope._replace(delay=_left(envelope, written.get(envelope.id, now), now), available_at=None)
            for envelope in envelopes
        ]


def _put_back(claim: Claim) -> Settlement:
    return _leaving(claim, Settlement.snoozed(claim.fence, AGAIN_AFTER))


def _leaving(claim: Claim, settlement: Settlement) -> Settlement:
    """Policies have admitted a job with the first claim of its row. Later ones only look where it is."""
    if claim.policies is None or claim.attempt > 1:
        return settlement
    return settlement.leaving(claim.policies, claim.headers)


def _ended(claim: Claim, outcome: Outcome) -> Settlement:
    if claim.policies is None:
        return Settlement.completed(claim.fence)
    effect = LeavePolicies(claim.fence.job_id, claim.policies, claim.headers, outcome)
    return Settlement.completed(claim.fence, (effect,))


def _too_late(claims: Sequence[Claim]) -> bool:
    """Whether the hold on these rows has run out: this process was frozen, or one of the stores took that long."""
    return clock.now() >= min(claim.deadline for claim in claims)


def _left(envelope: Envelope, written: datetime, now: datetime) -> float:
    try:
        until = envelope.available_at or written + timedelta(seconds=envelope.delay)
    except OverflowError:
        # Another program has written the row's date: outbox writes none that is out of range.
        return envelope.delay
    return max(0.0, (until - now).total_seconds())


def next_look(attempt: int, delay: float = 0.0) -> float:
    """Seconds until the row is looked at again. It was looked at for the ``attempt``-th time, and its job has to wait
    for ``delay`` seconds more."""
    if delay:
        return min(_LONGEST_WAIT, delay) + FIRST_LOOK
    return min(LONGEST_LOOK, FIRST_LOOK * 2.0 ** min(attempt - 1, 20))
