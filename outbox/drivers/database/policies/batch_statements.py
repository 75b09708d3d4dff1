"""Statements on the rows of batches, each by primary key."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import ValidationError

from outbox.drivers.database import raw_columns
from outbox.drivers.database.chunks import chunked
from outbox.drivers.database.connection.plans import Plan
from outbox.drivers.database.dialects import Dialect
from outbox.ids import JobId
from outbox.policies.batch import BatchPlan, Ran

ALL_RAN = Ran.THEN | Ran.CATCH | Ran.FINALLY
MEMBERS, FAILURES, ADDITIONS = "queue_batch_members", "queue_batch_failures", "queue_batch_additions"

Pair = tuple[JobId, JobId]
"""A batch, and a member of it."""


class BatchRow(NamedTuple):
    id: JobId
    total: int
    plan: BatchPlan
    ran: Ran
    cancelled: bool
    finished: bool
    problem: str = ""
    """Why its plan cannot be read. ``plan`` has only its name and total then, and the batch cannot end."""


def insert_batches(dialect: Dialect, plans: Mapping[JobId, BatchPlan]) -> Plan[None]:
    mark = dialect.placeholder
    for batch_id, plan in plans.items():
        listed, parameters = dialect.id_list([batch_id.bytes])
        yield (
            "INSERT INTO queue_batches (id, name, total, plan, ran, created_at) "
            f"VALUES ({listed}, {mark}, {plan.total}, {mark}, 0, {dialect.now}) "
            f"{dialect.keep_existing('queue_batches', 'id')}",
            (*parameters, plan.name, plan.model_dump_json()),
        )


def insert_pairs(dialect: Dialect, table: str, pairs: Iterable[Pair]) -> Plan[None]:
    for some in chunked(sorted(pairs)):
        rows: list[str] = []
        parameters: list[Any] = []
        for pair in some:
            listed, values = dialect.id_list([each.bytes for each in pair])
            rows.append(f"({listed})")
            parameters += values
        yield (
            f"INSERT INTO {table} (batch_id, member_id) VALUES {', '.join(rows)} "
            f"{dialect.keep_existing(table, 'batch_id', 'member_id')}",
            tuple(parameters),
        )


def add_to_total(dialect: Dialect, batch_id: JobId, first: JobId, count: int) -> Plan[None]:
    listed, parameters = dialect.id_list([batch_id.bytes, first.bytes])
    yield (
        f"INSERT INTO {ADDITIONS} (batch_id, member_id, members) VALUES ({listed}, {count}) "
        f"{dialect.keep_existing(ADDITIONS, 'batch_id', 'member_id')}",
        parameters,
    )


def delete_pairs(dialect: Dialect, table: str, pairs: Iterable[Pair]) -> Plan[None]:
    target = f"DELETE {table} FROM {table} {dialect.primary_hint}" if dialect.primary_hint else f"DELETE FROM {table}"
    for batch_id, members in _grouped(pairs):
        batch, batch_parameters = dialect.id_list([batch_id.bytes])
        for some in chunked(members):
            listed, parameters = dialect.id_list([each.bytes for each in some])
            yield f"{target} WHERE batch_id = {batch} AND member_id IN ({listed})", (*batch_parameters, *parameters)


def _grouped(pairs: Iterable[Pair]) -> Iterator[tuple[JobId, Sequence[JobId]]]:
    groups: dict[JobId, list[JobId]] = {}
    for batch_id, member in sorted(pairs):
        groups.setdefault(batch_id, []).append(member)
    yield from groups.items()


def read_batch(dialect: Dialect, batch_id: JobId, lock: str = "") -> Plan[BatchRow | None]:
    """The row of a batch, read with the locking clause ``lock``; None where there is none, or it is skipped."""
    listed, parameters = dialect.id_list([batch_id.bytes])
    rows = yield (
        "SELECT name, total, plan, ran, cancelled_at IS NOT NULL, finished_at IS NOT NULL FROM queue_batches "
        f"WHERE id = {listed} {lock}",
        parameters,
    )
    for name, members, text, ran, cancelled, finished in rows:
        total, problem = raw_columns.number(members), ""
        try:
            plan = BatchPlan.model_validate_json(raw_columns.text(text))
        except ValidationError as error:
            plan = BatchPlan(name=raw_columns.text(name), total=total)
            problem = f"its plan cannot be read: {error.errors(include_url=False)[0]['msg']}"
        started = Ran(raw_columns.number(ran) & ALL_RAN)
        return BatchRow(batch_id, total, plan, started, bool(cancelled), bool(finished), problem)
    return None


def has_member(dialect: Dialect, batch_id: JobId, lock: str = "") -> Plan[bool]:
    """Whether a member has not ended. The last one first: members usually end in the order of their ids, and entries of
    those that have ended may still be there for older readers."""
    listed, parameters = dialect.id_list([batch_id.bytes])
    rows = yield (
        f"SELECT member_id FROM {MEMBERS} WHERE batch_id = {listed} ORDER BY member_id DESC LIMIT 1 {lock}",
        parameters,
    )
    return any(True for _ in rows)


def counted(
    dialect: Dialect, batch_id: JobId, bound: int, most_failed: int | None = None
) -> Plan[tuple[int, int, int]]:
    """Failed members, up to ``most_failed``; members that were added later; and members that have not ended, up to
    ``bound``."""
    listed, parameters = dialect.id_list([batch_id.bytes])
    failures = f"FROM {FAILURES} WHERE batch_id = {listed}"
    if most_failed is not None:
        failures = f"FROM (SELECT 1 {failures} LIMIT {most_failed}) AS failures"
    rows = yield (
        f"SELECT (SELECT COUNT(*) {failures}), "
        f"(SELECT COALESCE(SUM(members), 0) FROM {ADDITIONS} WHERE batch_id = {listed}), "
        f"(SELECT COUNT(*) FROM (SELECT 1 FROM {MEMBERS} WHERE batch_id = {listed} LIMIT {bound}) AS some)",
        parameters * 3,
    )
    [(failed, added, outstanding)] = list(rows)
    return int(failed), int(added), int(outstanding)
