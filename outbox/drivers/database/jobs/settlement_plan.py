"""What settling says to the database: the statements of one batch, in whichever transaction they are sent."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise

from outbox.drivers.database.chunks import packets
from outbox.drivers.database.connection.plans import Plan
from outbox.drivers.database.dialects import Dialect
from outbox.drivers.database.dialects.syntax import MICROSECONDS
from outbox.drivers.database.jobs.effects import apply_effects
from outbox.drivers.database.jobs.lease import current_tokens
from outbox.drivers.values import PolicyNews, Settled
from outbox.settlement import (
    ENDS,
    PUT_BACK,
    UNKNOWN_FAILURE,
    Effect,
    Failure,
    Fence,
    LeavePolicies,
    Outcome,
    Settlement,
    dump_failure,
)

_TOKENS_AT_ONCE = 2
_REMOVED = (Outcome.COMPLETED, Outcome.CANCELLED)


class SettlementPlan:
    """One batch, of at most as many settlements as one statement has keys."""

    def __init__(self, dialect: Dialect, connection_name: str, settlements: Sequence[Settlement]) -> None:
        self._dialect = dialect
        self._connection_name = connection_name
        self._settlements = tuple(settlements)
        self.deletable = self._by_token()
        """Ids of the jobs by token, where a DELETE for each of one or two tokens settles all of them: then nothing has
        to be locked first. Empty where that is not all there is to do, or where it would lock rows in another order
        than that of their keys."""

    def _by_token(self) -> dict[bytes, list[bytes]]:
        pairs: list[tuple[bytes, bytes]] = []
        for (job_id, token), outcome, _, _, effects in self._settlements:
            if outcome not in _REMOVED or (effects and not all(map(is_leaving, effects))):
                return {}
            pairs.append((job_id.bytes, token))
        ids: dict[bytes, list[bytes]] = {}
        for key, token in sorted(pairs):
            ids.setdefault(token, []).append(key)
        in_order = all(some[-1] < after[0] for some, after in pairwise(ids.values()))
        return ids if in_order and len(ids) <= _TOKENS_AT_ONCE else {}

    def delete(self) -> Plan[Settled | None]:
        """Delete what is `deletable`. None if some rows were no longer held under their tokens. The rows tell which:
        roll back and `lock_and_settle`."""
        for token, ids in self.deletable.items():
            listed, parameters = self._dialect.id_list(ids)
            result = yield self._dialect.remove_held(listed), (*parameters, token)
            if result.rowcount != len(ids):
                return None
        gated = [settlement for settlement in self._settlements if settlement.effects]
        news = (yield from apply_effects(self._dialect, gated)) if gated else PolicyNews()
        return Settled(self._settlements, (), news)

    def lock_and_settle(self, unconfirmed: Collection[Fence] = ()) -> Plan[Settled]:
        """Lock the rows, compare their tokens, and write what was accepted. Nothing has to be rolled back for what was
        not. ``unconfirmed`` are fences of settlements that an earlier try or call may have committed."""
        ids = [settlement.fence.job_id.bytes for settlement in self._settlements]
        tokens = yield from current_tokens(self._dialect, ids, lock=True)
        accepted: list[Settlement] = []
        stale: list[Settlement] = []
        for settlement in self._settlements:
            current = tokens.get(settlement.fence.job_id.bytes)
            (accepted if current == settlement.fence.token else stale).append(settlement)
        written = yield from self._written_before(unconfirmed, accepted, stale, tokens)
        yield from self._replace_headers([s for s in accepted if s.effects])
        yield from self._write_failed([s for s in accepted if s.outcome is Outcome.FAILED])
        yield from self._put_back([s for s in accepted if s.outcome in PUT_BACK])
        yield from self._defer([s for s in accepted if s.outcome is Outcome.DEFERRED])
        yield from self._remove([s for s in accepted if s.outcome in ENDS])
        news = yield from apply_effects(self._dialect, accepted)
        still_stale = tuple(settlement for settlement in stale if settlement not in written)
        return Settled((*accepted, *written), still_stale, news)

    def _written_before(
        self,
        unconfirmed: Collection[Fence],
        accepted: Sequence[Settlement],
        stale: Sequence[Settlement],
        tokens: Mapping[bytes, bytes | None],
    ) -> Plan[list[Settlement]]:
        """Unconfirmed settlements that have left what they would leave. If another worker has ended a job in the same
        way meanwhile, calling the settlement accepted changes nothing in the store."""
        perhaps = [settlement for settlement in stale if settlement.fence in unconfirmed]
        # All of them were committed or none.
        if not perhaps or any(settlement.fence in unconfirmed for settlement in accepted):
            return []
        gone = [key for settlement in perhaps if (key := settlement.fence.job_id.bytes) not in tokens]
        failures = yield from self._failures(gone)
        return [settlement for settlement in perhaps if _has_left_its_end(settlement, tokens, failures)]

    def _failures(self, ids: Sequence[bytes]) -> Plan[dict[bytes, str]]:
        if not ids:
            return {}
        rows = yield self._dialect.failures(len(ids)), tuple(ids)
        # Servers write JSON in a form of their own.
        return {bytes(job_id): dump_failure(load_failure(exception)) for job_id, exception in rows}

    def _write_failed(self, failed: Sequence[Settlement]) -> Plan[None]:
        described = [(s.fence.job_id.bytes, dump_failure(s.failure), fingerprint_of(s.failure)) for s in failed]
        for chunk in packets(described, lambda each: len(each[1])):
            parameters = [value for job_id, exception, _ in chunk for value in (job_id, exception)]
            parameters += [value for job_id, _, fingerprint in chunk for value in (job_id, fingerprint)]
            ids = sorted(job_id for job_id, _, _ in chunk)
            yield self._dialect.copy_to_failed(len(chunk)), (self._connection_name, *parameters, *ids)

    def _replace_headers(self, settlements: Sequence[Settlement]) -> Plan[None]:
        for settlement in settlements:
            if (headers := settlement.headers) is not None:
                yield self._dialect.replace_headers(), (headers, settlement.fence.job_id.bytes)

    def _put_back(self, put_back: Sequence[Settlement]) -> Plan[None]:
        if not put_back:
            return
        parameters: list[object] = []
        for settlement in put_back:
            parameters += (settlement.fence.job_id.bytes, int(settlement.delay * MICROSECONDS))
        for settlement in put_back:
            parameters += (settlement.fence.job_id.bytes, int(settlement.outcome is Outcome.SNOOZED))
        errors = [(s.fence.job_id.bytes, s.failure.summary) for s in put_back if s.failure is not None]
        parameters += [value for pair in errors for value in pair]
        parameters += [job_id for job_id, _ in errors]
        ids = sorted(settlement.fence.job_id.bytes for settlement in put_back)
        yield self._dialect.put_back(len(put_back), len(errors)), (*parameters, *ids)

    def _defer(self, deferred: Sequence[Settlement]) -> Plan[None]:
        if not deferred:
            return
        delays = [value for s in deferred for value in (s.fence.job_id.bytes, int(s.delay * MICROSECONDS))]
        ids = sorted(settlement.fence.job_id.bytes for settlement in deferred)
        yield self._dialect.defer(len(ids)), (*delays, *delays, *ids)

    def _remove(self, removed: Sequence[Settlement]) -> Plan[None]:
        if not removed:
            return
        ids = sorted(settlement.fence.job_id.bytes for settlement in removed)
        yield self._dialect.remove(len(ids)), tuple(ids)


def is_leaving(effect: Effect) -> bool:
    """Whether it is about the policies of its job."""
    return isinstance(effect, LeavePolicies)


def _has_left_its_end(
    settlement: Settlement, tokens: Mapping[bytes, bytes | None], failures: Mapping[bytes, str]
) -> bool:
    key = settlement.fence.job_id.bytes
    if settlement.outcome is Outcome.DEFERRED:
        # The row is held under the same token, or under that of the next claim.
        return False
    if settlement.outcome in PUT_BACK:
        return key in tokens and tokens[key] is None
    if settlement.outcome is Outcome.FAILED:
        return key not in tokens and failures.get(key) == dump_failure(settlement.failure)
    return key not in tokens and key not in failures


def fingerprint_of(failure: Failure | None) -> str:
    return (failure or UNKNOWN_FAILURE).fingerprint


def load_failure(text: str | dict[str, str]) -> Failure:
    values = json.loads(text) if isinstance(text, str) else text
    return Failure(values["type"], values["message"], values["traceback"])
