"""What each event says to people: how serious it is, one word, and one line."""

from __future__ import annotations

from enum import Enum
from functools import singledispatch
from typing import NamedTuple

from outbox.events import (
    BatchDispatched,
    BatchEnded,
    BulkOperationEnded,
    BulkOperationStarted,
    ChainAdvanced,
    ChainDispatched,
    ChainEnded,
    CircuitClosed,
    CircuitOpened,
    ConnectionDown,
    ConnectionUp,
    Event,
    HealthPortOpened,
    HookFailed,
    JobCancelled,
    JobDispatched,
    JobEvent,
    JobGivenBack,
    JobOverdue,
    JobSettled,
    JobSkipped,
    JobStarted,
    KeyBlocked,
    KeyUnblocked,
    LeaseLost,
    LogLinesDropped,
    LoopBlocked,
    Paused,
    ProcessAltered,
    ProcessEnded,
    ProcessStarted,
    ResourceFailed,
    Resumed,
    ScheduleChanged,
    ScheduleSkipped,
    ScheduleTicked,
    SettlementPostponed,
    SettlementRefused,
    SettlementsAbandoned,
    SignalIgnored,
    SourcesChanged,
    WakeupsHeard,
    WakeupsUnheard,
    WorkerKilled,
    WorkerPaused,
    WorkerResumed,
    WorkerStarted,
    WorkerStopped,
    WorkerStopping,
)
from outbox.runtime.process.signals import signal_name
from outbox.settlement import Failure, Outcome

_LONGEST = 300
_MOST_NAMES = 20
_LAST_DIGITS = 0xFFFF_FFFF_FFFF
"""Twelve hexadecimal digits of a job id."""


class Level(Enum):
    QUIET = "quiet"
    GOOD = "good"
    NOTICE = "notice"
    WARNING = "warning"
    ERROR = "error"


class EventText(NamedTuple):
    level: Level
    word: str
    text: str


_PUT_BACK = (Outcome.RETRIED, Outcome.RELEASED, Outcome.SNOOZED, Outcome.DEFERRED)
_OUTCOMES = {
    Outcome.COMPLETED: (Level.GOOD, "done"),
    Outcome.RETRIED: (Level.WARNING, "retry"),
    Outcome.FAILED: (Level.ERROR, "failed"),
    Outcome.RELEASED: (Level.NOTICE, "released"),
    Outcome.SNOOZED: (Level.NOTICE, "put back"),
    Outcome.DEFERRED: (Level.QUIET, "deferred"),
    Outcome.CANCELLED: (Level.NOTICE, "removed"),
}


@singledispatch
def describe(event: Event) -> EventText:
    return EventText(Level.QUIET, "event", one_line(str(event)))


@describe.register
def _(event: JobDispatched) -> EventText:
    return EventText(Level.QUIET, "dispatched", f"{event.name} {event.job_id} to {event.queue} of {event.connection}")


@describe.register
def _(event: JobStarted) -> EventText:
    rescued = ": an earlier attempt ended with its worker" if event.rescued else ""
    return EventText(Level.QUIET, "running", f"{_job(event)}{rescued}")


@describe.register
def _(event: JobSettled) -> EventText:
    level, word = _OUTCOMES[event.outcome]
    text = f"{_job(event)}, {_seconds(event.seconds)}"
    if event.outcome in _PUT_BACK:
        text += f"; again in {_seconds(event.delay)}" if event.delay else "; again at once"
    if event.failure is not None:
        text += f": {_failure(event.failure)}"
    return EventText(level, word, text)


@describe.register
def _(event: LeaseLost) -> EventText:
    return EventText(Level.WARNING, "lost", f"{_job(event)}: {event.reason}; what it does now changes nothing")


@describe.register
def _(event: JobCancelled) -> EventText:
    return EventText(
        Level.NOTICE, "cancelled", f"{_job(event)}: removed by an operator; what it does now changes nothing"
    )


@describe.register
def _(event: JobSkipped) -> EventText:
    return EventText(Level.NOTICE, "skipped", f"{_job(event)}: {event.reason}; it was removed")


@describe.register
def _(event: JobGivenBack) -> EventText:
    return EventText(Level.WARNING, "given back", f"{_job(event)}: {one_line(event.reason)}; another worker may run it")


@describe.register
def _(event: KeyBlocked) -> EventText:
    return EventText(
        Level.ERROR,
        "blocked",
        f"key {event.key}: the job {event.job_id} has failed, and what comes after it waits: "
        f"`outbox unblock {event.key} --retry` or `--skip`",
    )


@describe.register
def _(event: KeyUnblocked) -> EventText:
    return EventText(Level.NOTICE, "unblocked", one_line(f"key {event.key}: the job {event.job_id} blocks it no more"))


@describe.register
def _(event: BulkOperationStarted) -> EventText:
    total = "more than can be counted" if event.total is None else _jobs(event.total)
    text = f"{event.verb} {event.operation_id} begins, {total}{_by(event.by)}"
    return EventText(Level.NOTICE, "bulk", one_line(text))


@describe.register
def _(event: BulkOperationEnded) -> EventText:
    how = "was stopped" if event.stopped else "has ended"
    refused = f", {event.refused} refused" if event.refused else ""
    text = f"{event.verb} {event.operation_id} {how} after {_jobs(event.done)}{refused}{_by(event.by)}"
    return EventText(Level.NOTICE, "bulk", one_line(text))


@describe.register
def _(event: ChainDispatched) -> EventText:
    return EventText(Level.QUIET, "dispatched", f"chain {event.chain_id} of {_jobs(event.jobs)}")


@describe.register
def _(event: ChainAdvanced) -> EventText:
    text = f"{event.chain_id}: job {event.number} is {event.name} {event.job_id} in {event.queue}"
    return EventText(Level.QUIET, "chain", text)


@describe.register
def _(event: ChainEnded) -> EventText:
    level = Level.NOTICE if event.outcome is Outcome.FAILED else Level.QUIET
    return EventText(level, "chain", f"{event.chain_id} ended with job {event.number}: {event.outcome.value}")


@describe.register
def _(event: BatchDispatched) -> EventText:
    text = f"batch {event.name} {event.batch_id} of {event.total:,} members"
    return EventText(Level.QUIET, "dispatched", one_line(text))


@describe.register
def _(event: BatchEnded) -> EventText:
    level = Level.WARNING if event.state == "failed" else Level.QUIET
    text = f"{event.name} {event.batch_id}: {event.state}, {event.failed:,} of {event.total:,} members failed"
    return EventText(level, "batch", one_line(text))


@describe.register
def _(event: Paused) -> EventText:
    reason = f": {event.reason}" if event.reason else ""
    until = f", until {event.until:%Y-%m-%d %H:%M:%S} UTC" if event.until is not None else ""
    return EventText(Level.NOTICE, "paused", one_line(f"the {event.kind} {event.name}{reason}{until}"))


@describe.register
def _(event: Resumed) -> EventText:
    why = ": the time of its pause is up" if event.by_itself else ""
    return EventText(Level.NOTICE, "resumed", one_line(f"the {event.kind} {event.name}{why}"))


@describe.register
def _(event: CircuitOpened) -> EventText:
    text = f"{event.job} is paused for {event.seconds:g} s: its jobs raise {event.error}"
    return EventText(Level.WARNING, "circuit", one_line(text))


@describe.register
def _(event: CircuitClosed) -> EventText:
    return EventText(Level.NOTICE, "circuit", one_line(f"{event.job} goes on: its probe has succeeded"))


@describe.register
def _(event: ScheduleChanged) -> EventText:
    return EventText(Level.NOTICE, "schedule", one_line(f"{event.schedule}: {event.change}"))


@describe.register
def _(event: JobOverdue) -> EventText:
    return EventText(
        Level.ERROR,
        "overdue",
        f"{_job(event)}: does not stop although {event.reason}; its slot stays taken until it does",
    )


@describe.register
def _(event: HookFailed) -> EventText:
    return EventText(Level.WARNING, "hook", f"{_job(event)}: failed() itself failed: {_failure(event.failure)}")


@describe.register
def _(event: ResourceFailed) -> EventText:
    return EventText(
        Level.WARNING, "resource", f"{_job(event)}: its resources were not closed: {_failure(event.failure)}"
    )


@describe.register
def _(event: SettlementPostponed) -> EventText:
    return EventText(
        Level.ERROR,
        "postponed",
        f"{_job(event)}: the store does not take its end ({event.outcome.value}) for now: {_failure(event.failure)}; "
        "trying again while this worker runs",
    )


@describe.register
def _(event: SettlementRefused) -> EventText:
    return EventText(
        Level.ERROR,
        "refused",
        f"{_job(event)}: the store does not take its end ({event.outcome.value}): {_failure(event.failure)}; "
        "it runs again when its lease ends",
    )


@describe.register
def _(event: SettlementsAbandoned) -> EventText:
    return EventText(
        Level.ERROR,
        "abandoned",
        f"{event.connection}: the ends of {_jobs(len(event.job_ids))} could not be written before the worker had to "
        "stop; they run again when their leases end",
    )


@describe.register
def _(event: LoopBlocked) -> EventText:
    where = [line.strip() for line in event.stack.splitlines() if line.strip()]
    return EventText(
        Level.WARNING,
        "blocked",
        f"the event loop has not run for {_seconds(event.seconds)}: a handler blocks it, at {' '.join(where[-2:])}; "
        f"running: {', '.join(event.running)}",
    )


@describe.register
def _(event: WorkerStarted) -> EventText:
    woken = f", woken by {'; '.join(event.wakeups)}" if event.wakeups else ""
    return EventText(
        Level.NOTICE,
        "started",
        f"worker {event.worker} (pid {event.pid}) drains {', '.join(event.queues)} "
        f"from {'; '.join(event.connections)}: {_jobs(event.concurrency)} at once, lease {event.lease:g} s{woken}",
    )


@describe.register
def _(event: WorkerStopping) -> EventText:
    verb = "is" if event.running == 1 else "are"
    text = f"worker {event.worker}: {event.reason}; {_jobs(event.running)} {verb} running"
    if event.error is not None:
        return EventText(Level.ERROR, "stopping", f"{text}: {_failure(event.error)}")
    return EventText(Level.NOTICE, "stopping", text)


@describe.register
def _(event: WorkerStopped) -> EventText:
    return EventText(
        Level.NOTICE,
        "stopped",
        f"worker {event.worker}: {event.processed} processed, {event.failed} failed, {event.handed_back} handed back",
    )


@describe.register
def _(event: WorkerPaused) -> EventText:
    verb = "goes" if event.running == 1 else "go"
    text = f"worker {event.worker} claims nothing until CONT (USR2); {_jobs(event.running)} {verb} on"
    return EventText(Level.NOTICE, "paused", text)


@describe.register
def _(event: WorkerResumed) -> EventText:
    return EventText(Level.NOTICE, "resumed", f"worker {event.worker} claims jobs again (CONT)")


@describe.register
def _(event: SignalIgnored) -> EventText:
    return EventText(Level.NOTICE, "signal", f"{event.signal}: {event.reason}")


@describe.register
def _(event: ProcessAltered) -> EventText:
    by = f"; running or just ended: {_names(event.suspects)}" if event.suspects else ""
    return EventText(Level.WARNING, "altered", one_line(f"a job {event.what}; {event.action}{by}"))


@describe.register
def _(event: LogLinesDropped) -> EventText:
    lines = "1 log line was" if event.count == 1 else f"{event.count:,} log lines were"
    return EventText(Level.WARNING, "dropped", f"{lines} not written: nothing read them in time, or writing failed")


@describe.register
def _(event: WorkerKilled) -> EventText:
    text = f"worker {event.worker} ends with exit code {event.exit_code}, at once: {event.reason}"
    if event.running:
        count = "1 job waits" if len(event.running) == 1 else f"{len(event.running)} jobs wait"
        text += f"; {count} for the end of the lease: {_names(event.running)}"
    return EventText(Level.ERROR, "killed", text)


@describe.register
def _(event: ConnectionDown) -> EventText:
    return EventText(Level.ERROR, "down", f"{event.connection}: {one_line(event.error)}; trying until it is back")


@describe.register
def _(event: ConnectionUp) -> EventText:
    return EventText(Level.GOOD, "up", f"{event.connection}: back after {_seconds(event.seconds)}")


@describe.register
def _(event: WakeupsUnheard) -> EventText:
    text = f"{event.connection}: {event.source} is not heard: {one_line(event.error)}; polling until it is"
    return EventText(Level.WARNING, "wake-ups", text)


@describe.register
def _(event: WakeupsHeard) -> EventText:
    return EventText(Level.GOOD, "wake-ups", f"{event.connection}: {event.source} is heard again")


@describe.register
def _(event: ProcessStarted) -> EventText:
    return EventText(Level.NOTICE, "process", f"{event.index} started (pid {event.pid})")


@describe.register
def _(event: ScheduleTicked) -> EventText:
    text = f"{event.schedule} of {event.tick:%Y-%m-%d %H:%M:%S} UTC: job {event.job_id}"
    return EventText(Level.QUIET, "tick", one_line(text))


@describe.register
def _(event: ScheduleSkipped) -> EventText:
    text = f"{event.schedule} of {event.tick:%Y-%m-%d %H:%M:%S} UTC became no job: {event.reason}"
    return EventText(Level.NOTICE, "no tick", one_line(text))


@describe.register
def _(event: ProcessEnded) -> EventText:
    how = f"exit code {event.exit_code}" if event.exit_code >= 0 else signal_name(-event.exit_code)
    if event.restart_in is None:
        return EventText(Level.NOTICE, "process", f"{event.index} ended (pid {event.pid}, {how})")
    again = f"in {_seconds(event.restart_in)}" if event.restart_in else "at once"
    return EventText(Level.WARNING, "process", f"{event.index} ended (pid {event.pid}, {how}); starts again {again}")


@describe.register
def _(event: SourcesChanged) -> EventText:
    return EventText(Level.NOTICE, "reload", ", ".join(event.paths))


@describe.register
def _(event: HealthPortOpened) -> EventText:
    return EventText(Level.NOTICE, "health", f"{event.url} answers {', '.join(event.paths)}")


def banner(event: WorkerStarted) -> str:
    """What a person sees first: what is drained, where it is, and how to stop."""
    rows = [
        ("drains", f"{', '.join(event.queues)}{' (in this order)' if len(event.queues) > 1 else ''}"),
        *(("from", connection) for connection in event.connections),
        ("at once", f"{_jobs(event.concurrency)}, each held by a lease of {event.lease:g} s while it runs"),
        *(("woken by", wakeups) for wakeups in event.wakeups),
        ("stop", f"Ctrl-C, or kill -TERM {event.pid}"),
    ]
    lines = [
        f"\x1b[1moutbox\x1b[0m  worker {event.worker}",
        *(f"  \x1b[2m{key:<8}\x1b[0m {text}" for key, text in rows),
    ]
    return "\n".join(lines)


def one_line(text: str) -> str:
    """Printable, short, and without what would move a terminal's cursor."""
    line = " ".join(text.split())
    line = "".join(character if character.isprintable() else "?" for character in line)
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…"


def _by(name: str | None) -> str:
    return "" if name is None else f", for {name}"


def _job(event: JobEvent) -> str:
    return f"{event.name} {event.job_id.int & _LAST_DIGITS:012x} attempt {event.attempt}"


def _jobs(count: int) -> str:
    return "1 job" if count == 1 else f"{count} jobs"


def _names(jobs: tuple[str, ...]) -> str:
    more = f" and {len(jobs) - _MOST_NAMES} more" if len(jobs) > _MOST_NAMES else ""
    return ", ".join(jobs[:_MOST_NAMES]) + more


def _failure(failure: Failure) -> str:
    return one_line(f"{failure.type}: {failure.message}" if failure.message else failure.type)


def _seconds(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
