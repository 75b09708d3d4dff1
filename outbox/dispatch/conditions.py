"""`dispatch_if`: which jobs of a dispatch are left out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import compress
from typing import Any

from outbox.ids import JobId, new_job_id
from outbox.ids import met as receipt_of_met
from outbox.job import Job
from outbox.options import DispatchOptions, JobOptions
from outbox.policies.attempt_limits import check_dispatch_if


def wanted_jobs(jobs: Iterable[Job], options: DispatchOptions) -> list[Job]:
    """Those of ``jobs`` whose ``dispatch_if``, or that of ``options``, does not leave them out.

    Raises:
        InvalidOption: it is not True or False.
    """
    some = list(jobs)
    chosen = allowed(some, JobOptions.checked(dispatch_if=options.get("dispatch_if")))
    return some if chosen is None else list(compress(some, chosen))


def allowed(jobs: Sequence[Job], options: JobOptions) -> list[bool] | None:
    """For each job whether it is to be dispatched. None if all are."""
    if options.dispatch_if is not None:
        return None if options.dispatch_if else [False] * len(jobs)
    if all(getattr(job, "dispatch_if", None) is None for job in jobs):
        return None
    return [_allows(job) for job in jobs]


def _allows(job: Any) -> bool:
    declared = getattr(type(job), "dispatch_if", None)
    return check_dispatch_if(job.dispatch_if()) if callable(declared) else declared is not False


def mark_left_out(ids: list[JobId], allowed: Sequence[bool]) -> None:
    """Give jobs that are left out ids that say so. ``ids`` end with those of the others."""
    first = len(ids) - sum(allowed)
    for position, is_allowed in enumerate(allowed):
        if not is_allowed:
            ids.insert(first + position, receipt_of_met(new_job_id()))
