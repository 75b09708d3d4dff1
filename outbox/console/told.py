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


async def told_of(driver: Driver, job: StoredJob, kind: type[Job] | None) -> list[str]:
    """Lines. Options of its class are left out where ``kind`` is None."""
    told = _options(job, kind)
    if driver.policies is not None:
        told += await driver.policies.explain(job)
    pause = pause_of(await driver.pauses.all(), job)
    return told if pause is None else [*told, described_pause(pause)]


def _options(job: StoredJob, kind: type[Job] | None) -> list[str]:
    try:
        headers = Headers.load(job.headers)
    except InvalidPayload:
        return []
    told = described(limits_of(kind, headers.options), headers.counts or NO_COUNTS)
    of_class = None if kind is None else kind.keep_for
    keep_for = check_keep_for((of_class if headers.options.keep_for is None else headers.options.keep_for) or 0.0)
    return [*told, f"kept for {keep_for:g} s after its end"] if keep_for else told
