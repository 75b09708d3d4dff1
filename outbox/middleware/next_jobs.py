"""What follows the end of a job: the next one of its chain, in the same settlement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic_core import to_json

from outbox.envelope import Envelope, Headers, from_link, with_headers
from outbox.errors import InvalidPayload, InvalidResult
from outbox.ids import new_job_id
from outbox.policies.chain import RESULT_LIMIT, ChainHeader
from outbox.settlement import InsertJobs, Outcome, Settlement

if TYPE_CHECKING:
    from outbox.runtime.execution.attempt import Attempt


def keep_result(attempt: Attempt, value: object) -> None:
    """Keep what the handler returned, where a next job is to have it, or it is kept with the job.

    Raises:
        InvalidResult: it is no JSON, or over the limit.
    """
    if not attempt.keep_for and (attempt.chain is None or not attempt.chain.rest):
        return
    name = attempt.claim.name
    try:
        result = to_json(value)
    except Exception as error:
        raise InvalidResult(f"{name}: what `handle` returned is no JSON, and {_wants(attempt)}: {error}") from error
    if len(result) > RESULT_LIMIT:
        raise InvalidResult(
            f"{name}: what `handle` returned is {len(result):,} bytes, the limit {RESULT_LIMIT:,}, and "
            f"{_wants(attempt)}: store it, and return its key"
        )
    text, cipher, chain = result.decode(), attempt.cipher, attempt.chain
    if attempt.keep_for:
        attempt.kept_result = text if cipher is None else cipher.kept_result(text)
    if chain is not None and chain.rest:
        attempt.result = text if cipher is None else cipher.result(text, chain.id, chain.number)


def _wants(attempt: Attempt) -> str:
    return "the job is kept with it (keep_for)" if attempt.keep_for else "the next job of the chain is to have it"


def with_next_jobs(attempt: Attempt, settlement: Settlement) -> Settlement:
    """``settlement`` with the job that it inserts, if the attempt at a job of a chain ends for good."""
    if settlement.outcome is Outcome.COMPLETED:
        inserted: Sequence[Envelope] = [*_next(attempt), *_added(attempt)]
    elif settlement.outcome is Outcome.FAILED:
        inserted = _catch(attempt, settlement)
    else:
        return settlement
    if not inserted:
        return settlement
    return settlement._replace(effects=(*settlement.effects, InsertJobs(tuple(inserted))))


def _added(attempt: Attempt) -> Sequence[Envelope]:
    return () if attempt.batch is None else attempt.batch.added


def _next(attempt: Attempt) -> Sequence[Envelope]:
    header, chain = _header(attempt), attempt.chain
    if header is None or chain is None or not chain.rest:
        return ()
    changed = {"number": header.number + 1, "rest": chain.rest[1:], "previous": attempt.result}
    trace = Headers.load(attempt.claim.headers).trace  # that of the dispatch of the chain
    return [with_headers(from_link(chain.rest[0], new_job_id()), chain=header.model_copy(update=changed), trace=trace)]


def _catch(attempt: Attempt, settlement: Settlement) -> Sequence[Envelope]:
    header = _header(attempt)
    if header is None or header.catch is None:
        return ()
    claim = attempt.claim
    failed = {
        "job_id": str(claim.fence.job_id),
        "name": claim.name,
        "error": settlement.failure.summary if settlement.failure else "unknown",
    }
    chain = ChainHeader(id=header.id, number=header.number, caught=True, previous=to_json(failed).decode())
    return [with_headers(from_link(header.catch, new_job_id()), chain=chain)]


def _header(attempt: Attempt) -> ChainHeader | None:
    """From the headers and not from the job: a job whose class is unknown has none."""
    if '"chain"' not in attempt.claim.headers:
        return None
    try:
        return Headers.load(attempt.claim.headers).chain
    except InvalidPayload:
        return None
