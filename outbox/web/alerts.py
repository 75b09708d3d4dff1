"""What needs attention, of all that was read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from outbox.console.finding import Finding, Level
from outbox.console.formatting import age, counted
from outbox.console.health_checks import check_queues, check_workers
from outbox.drivers.pauses import Pause, PauseKind
from outbox.drivers.values import StoreFacts
from outbox.errors import OutboxError
from outbox.web.values import Alert, BlockedKeys, Queue, Schedule, Worker

_LEFT_OPEN = 600.0
"""Seconds after which an open transaction is one that something has forgotten."""


def alerts_of(
    connections: Sequence[str],
    queues: Sequence[Queue],
    workers: Sequence[Worker],
    errors: Mapping[str, OutboxError],
    blocked: BlockedKeys,
    schedules: Sequence[Schedule],
    pauses: Mapping[str, Sequence[Pause]],
    facts: Mapping[str, StoreFacts],
) -> list[Alert]:
    """Connections that do not answer first."""
    alerts = [_unreachable(name, error) for name, error in errors.items()]
    for name in connections:
        counts = [queue.counts for queue in queues if queue.connection == name]
        statuses = [worker.status for worker in workers if worker.connection == name]
        kept = [pause for pause in pauses.get(name, ()) if pause.kind is not PauseKind.KEY]
        alerts += [_alert(name, each, "/queues") for each in check_queues(name, counts, statuses, kept)]
        alerts += [_alert(name, each, "/workers") for each in check_workers(name, statuses)]
    alerts += [_blocked(name, blocked) for name in connections if any(each.connection == name for each in blocked.keys)]
    alerts += [_paused_keys(name, number) for name in connections if (number := _number_of_keys(pauses.get(name, ())))]
    alerts += [_missed(each) for each in schedules if each.is_missed]
    alerts += [_left_open(name, each) for name, each in facts.items() if (each.oldest_transaction or 0.0) > _LEFT_OPEN]
    return [alert for alert in alerts if alert.advice]


def _blocked(connection: str, blocked: BlockedKeys) -> Alert:
    """Keys are not named: not each viewer may see them."""
    number = sum(each.connection == connection for each in blocked.keys)
    verb = "is" if number == 1 else "are"
    among = " among the latest" if connection in blocked.next else ""
    message = f"{counted(number, 'key')} {verb} blocked by failed jobs{among}"
    return Alert(connection, message, "retry the jobs, or skip them", "/keys")


def _number_of_keys(pauses: Sequence[Pause]) -> int:
    return sum(pause.kind is PauseKind.KEY for pause in pauses)


def _paused_keys(connection: str, number: int) -> Alert:
    """Keys are not named here either."""
    message = f"{counted(number, 'key')} {'is' if number == 1 else 'are'} paused"
    return Alert(connection, message, "see `outbox stats`; `outbox resume --key KEY` lets workers go on", "/keys")


def _missed(schedule: Schedule) -> Alert:
    message = f"the schedule {schedule.stored.name} has missed its tick"
    return Alert(schedule.connection, message, "start a worker: each worker lets schedules tick", "/schedules")


def _left_open(connection: str, facts: StoreFacts) -> Alert:
    message = f"a transaction of the server has been open for {age(facts.oldest_transaction or 0.0)}"
    advice = "find it in information_schema.innodb_trx: until it ends, the server keeps every row version of that time"
    return Alert(connection, message, advice, "/health")


def _unreachable(name: str, error: OutboxError) -> Alert:
    return Alert(name, str(error), "see the health page", "/health", serious=True)


def _alert(connection: str, finding: Finding, place: str) -> Alert:
    if finding.level not in (Level.WARNING, Level.PROBLEM):
        return Alert(connection, finding.message, "", place)
    return Alert(connection, finding.message, finding.advice, place, finding.level is Level.PROBLEM)
