"""Makes a job of a claimed row, and gives it its context."""

from __future__ import annotations

from typing import TYPE_CHECKING

from outbox.client_state import current_keys
from outbox.encrypted_jobs import JobCipher, open_payload, token_of
from outbox.envelope import NO_HEADERS, Headers, load_stored
from outbox.errors import AttemptsExhausted, DecryptionFailed, InvalidPayload, JobError
from outbox.job import Job
from outbox.job_context import JobContext
from outbox.middleware.batch_additions import BatchAdditions
from outbox.middleware.chain_steps import ChainSteps
from outbox.middleware.completion import Completion
from outbox.middleware.kept_results import WithoutText, with_kept_result
from outbox.middleware.next_jobs import with_next_jobs
from outbox.options import NO_OPTIONS
from outbox.policies.attempt_limits import limits_of
from outbox.policies.base import chosen
from outbox.policies.results import check_keep_for
from outbox.settlement import Failure

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from outbox.drivers.values import Claim
    from outbox.middleware.job_sessions import JobSessions
    from outbox.middleware.results import Handler, HandlerResult
    from outbox.policies.attempt_limits import AttemptLimits
    from outbox.runtime.execution.attempt import Attempt
    from outbox.runtime.execution.retry_policy import RetryPolicy
    from outbox.settlement import Settlement


def link(
    call_next: Handler,
    kind: type[Job],
    default: RetryPolicy,
    sessions: JobSessions,
    check_deadlines: Callable[[Attempt, AttemptLimits, Handler], Awaitable[HandlerResult]],
) -> Handler:
    of_class, limits_of_class = default.of(kind, NO_HEADERS), limits_of(kind, NO_OPTIONS)
    kept = check_keep_for(kind.keep_for or 0.0)

    def prepare(attempt: Attempt) -> Awaitable[HandlerResult]:
        """
        Raises:
            JobError: the row cannot be run. Attempts are counted before the payload is touched: a payload whose
                validation kills the process must come to its end, too.
        """
        claim = attempt.claim
        headers = Headers.load(claim.headers)
        policy, limits, keep_for = of_class, limits_of_class, kept
        if headers is not NO_HEADERS:
            add_steps(attempt, headers)
            if headers.options is not NO_OPTIONS:
                policy, limits = default.of(kind, headers), limits_of(kind, headers.options)
                keep_for = check_keep_for(chosen(kind, headers.options, "keep_for") or 0.0)
        attempt.policy, attempt.limits = policy, limits
        if claim.attempt > policy.max_tries:
            raise _exhausted(claim, policy)
        if keep_for and attempt.reports is not None:
            attempt.keep_for = keep_for
        completion = Completion(claim, attempt.connection, sessions)
        if keep_for or headers is not NO_HEADERS:
            completion.follow_up = follow_up(attempt)
        attempt.job = load_job(kind, attempt, policy.max_tries, completion)
        if limits is not None and limits.timed:
            return check_deadlines(attempt, limits, call_next)
        return call_next(attempt)

    return prepare


def add_steps(attempt: Attempt, headers: Headers) -> None:
    """What the headers say that a job is part of."""
    attempt.counts = headers.counts
    if headers.chain is not None:
        attempt.chain = ChainSteps(headers.chain, attempt.connection, headers.batch)
    if headers.batch is not None:
        attempt.batch = BatchAdditions(headers.batch.id, attempt.connection, on_redis=headers.policies is not None)


def follow_up(attempt: Attempt) -> Callable[[Settlement], Settlement] | None:
    """What a job's own transaction adds to the end of the job."""
    if attempt.chain is None and attempt.batch is None and not attempt.keep_for:
        return None
    return lambda settlement: with_kept_result(attempt, with_next_jobs(attempt, settlement))


def refusing(error: JobError) -> Handler:
    """In place of a chain, for rows that have no job class."""

    def refuse(_: Attempt) -> Awaitable[HandlerResult]:
        raise error

    return refuse


def load_job(kind: type[Job], attempt: Attempt, max_tries: int, completion: Completion | None = None) -> Job:
    """
    Raises:
        InvalidPayload: no job can be made of the row, whatever the validators of its class do.
        DecryptionFailed: the payload is encrypted, and cannot be decrypted.
    """
    claim = attempt.claim
    payload = claim.payload if claim.headers == "{}" else _decrypted(attempt)
    try:
        job = load_stored(kind, claim.name, payload, claim.headers)
    except JobError:
        raise
    except BaseException as error:
        raise InvalidPayload(
            f"{claim.name}: loading the payload raised {type(error).__name__}, which is not a validation error: "
            f"{Failure.of(error).message}"
        ) from error
    reports, attempt.completion = attempt.reports, completion
    job.run_in(
        JobContext(
            job_id=claim.fence.job_id,
            attempt=claim.attempt,
            max_tries=max_tries,
            queue=claim.queue,
            connection=attempt.connection,
            completion=completion,
            chain=attempt.chain,
            batch=attempt.batch,
            reports=reports if reports is None or attempt.cipher is None else WithoutText(reports),
            tick=None if claim.policies is None or '"tick"' not in claim.headers else Headers.load(claim.headers).tick,
        )
    )
    return job


def _decrypted(attempt: Attempt) -> str:
    """The payload of a job that has headers. Whatever the attempt at an encrypted one leaves behind is encrypted."""
    claim = attempt.claim
    if token_of(claim.payload) is None:
        return claim.payload
    keys, job_id = current_keys(), claim.fence.job_id
    try:
        payload = open_payload(keys, claim.payload, claim.headers, claim.name, job_id, attempt.connection)
    except DecryptionFailed as error:
        raise DecryptionFailed(f"{claim.name}: {error}") from None
    attempt.cipher = JobCipher(keys, claim.name, job_id)
    return payload


def _exhausted(claim: Claim, policy: RetryPolicy) -> AttemptsExhausted:
    """The row tells how many attempts there were and how the last one ended, and not how the others ended."""
    times = claim.attempt - 1
    last = ": the last time, the worker that ran it died, froze or lost its connection before the job ended"
    return AttemptsExhausted(
        f"{claim.name}: retried, released or lease ended {times} time{'s' if times != 1 else ''} in all, "
        f"with max_tries {policy.max_tries}{last if claim.rescued else ''}"
    )
