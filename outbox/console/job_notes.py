"""What operators are told of a live job: its limits, what it waits for, and what is paused."""

from __future__ import annotations

from outbox.drivers.base import Driver
from outbox.drivers.pauses import described as described_pause
from outbox.drivers.pauses import pause_of
from outbox.drivers.values import StoredJob
from outbox.envelope import Headers
from outbox.errors import InvalidPayload
from outbox.job import Job
from outbox.policies.attempt_limits import NO_COUNTS, described, limits_of
from outbox.policies.results import check_keep_for


async def notes_on(driver: Driver, job: StoredJob, kind: type[Job] | None) -> list[str]:
    """Lines. Options of its class are left out where ``kind`` is None."""
    notes = _options(job, kind)
    if driver.policies is not None:
        notes += await driver.policies.explain(job)
    pause = pause_of(await driver.pauses.all(), job)
    return notes if pause is None else [*notes, described_pause(pause)]


def _options(job: StoredJob, kind: type[Job] | None) -> list[str]:
    try:
        headers = Headers.load(job.headers)
    except InvalidPayload:
        return []
    notes = described(limits_of(kind, headers.options), headers.counts or NO_COUNTS)
    of_class = None if kind is None else kind.keep_for
    keep_for = check_keep_for((of_class if headers.options.keep_for is None else headers.options.keep_for) or 0.0)
    return [*notes, f"kept for {keep_for:g} s after its end"] if keep_for else notes
