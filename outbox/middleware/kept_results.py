"""Keeps what a job returned, and how far it was, for a while after its end: in its settlement."""

from __future__ import annotations

from typing import TYPE_CHECKING

from outbox import clock
from outbox.settlement import KeepFinished, Outcome, Settlement

if TYPE_CHECKING:
    from outbox.ids import JobId
    from outbox.job_context import ProgressReports
    from outbox.policies.results import Progress
    from outbox.runtime.execution.attempt import Attempt


class WithoutText:
    """`ProgressReports` of an encrypted job: what it says to people stays in the process."""

    def __init__(self, reports: ProgressReports) -> None:
        self._reports = reports

    def report(self, job_id: JobId, progress: Progress) -> None:
        self._reports.report(job_id, progress._replace(text=""))


def with_kept_result(attempt: Attempt, settlement: Settlement) -> Settlement:
    """``settlement`` with what is kept of its job, if it completes one with ``keep_for``."""
    if not attempt.keep_for or settlement.outcome is not Outcome.COMPLETED:
        return settlement
    claim, context = attempt.claim, attempt.job.context if attempt.job is not None else None
    progress = context.reported if context is not None else None
    if progress is not None and attempt.cipher is not None:
        progress = progress._replace(text="")
    effect = KeepFinished(
        claim.fence.job_id,
        claim.queue,
        claim.name,
        claim.priority,
        claim.payload,
        claim.headers,
        claim.attempt,
        attempt.keep_for,
        attempt.kept_result or "null",
        progress,
        0.0 if attempt.started is None else clock.now() - attempt.started,
    )
    return settlement._replace(effects=(*settlement.effects, effect))
