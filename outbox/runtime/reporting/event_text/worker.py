"""Texts of the life of a worker process, and the banner of its start."""

from __future__ import annotations

from outbox.events import (
    HealthPortOpened,
    LogLinesDropped,
    LoopBlocked,
    ProcessAltered,
    SignalIgnored,
    WorkerKilled,
    WorkerPaused,
    WorkerResumed,
    WorkerStarted,
    WorkerStopped,
    WorkerStopping,
)
from outbox.runtime.reporting.event_text.base import EventText, Level, describe
from outbox.runtime.reporting.event_text.phrases import duration, failure_text, job_count, job_names, one_line


@describe.register
def _(event: WorkerStarted) -> EventText:
    woken = f", woken by {'; '.join(event.wakeups)}" if event.wakeups else ""
    return EventText(
        Level.NOTICE,
        "started",
        f"worker {event.worker} (pid {event.pid}) drains {', '.join(event.queues)} "
        f"from {'; '.join(event.connections)}: {job_count(event.concurrency)} at once, lease {event.lease:g} s{woken}",
    )


@describe.register
def _(event: HealthPortOpened) -> EventText:
    return EventText(Level.NOTICE, "health", f"{event.url} answers {', '.join(event.paths)}")


@describe.register
def _(event: WorkerPaused) -> EventText:
    verb = "goes" if event.running == 1 else "go"
    text = f"worker {event.worker} claims nothing until CONT (USR2); {job_count(event.running)} {verb} on"
    return EventText(Level.NOTICE, "paused", text)


@describe.register
def _(event: WorkerResumed) -> EventText:
    return EventText(Level.NOTICE, "resumed", f"worker {event.worker} claims jobs again (CONT)")


@describe.register
def _(event: WorkerStopping) -> EventText:
    verb = "is" if event.running == 1 else "are"
    text = f"worker {event.worker}: {event.reason}; {job_count(event.running)} {verb} running"
    if event.error is not None:
        return EventText(Level.ERROR, "stopping", f"{text}: {failure_text(event.error)}")
    return EventText(Level.NOTICE, "stopping", text)


@describe.register
def _(event: WorkerStopped) -> EventText:
    return EventText(
        Level.NOTICE,
        "stopped",
        f"worker {event.worker}: {event.processed} processed, {event.failed} failed, {event.handed_back} handed back",
    )


@describe.register
def _(event: WorkerKilled) -> EventText:
    text = f"worker {event.worker} ends with exit code {event.exit_code}, at once: {event.reason}"
    if event.running:
        count = "1 job waits" if len(event.running) == 1 else f"{len(event.running)} jobs wait"
        text += f"; {count} for the end of the lease: {job_names(event.running)}"
    return EventText(Level.ERROR, "killed", text)


@describe.register
def _(event: LoopBlocked) -> EventText:
    where = [line.strip() for line in event.stack.splitlines() if line.strip()]
    return EventText(
        Level.WARNING,
        "blocked",
        f"the event loop has not run for {duration(event.seconds)}: a handler blocks it, at {' '.join(where[-2:])}; "
        f"running: {', '.join(event.running)}",
    )


@describe.register
def _(event: ProcessAltered) -> EventText:
    by = f"; running or just ended: {job_names(event.suspects)}" if event.suspects else ""
    return EventText(Level.WARNING, "altered", one_line(f"a job {event.what}; {event.action}{by}"))


@describe.register
def _(event: LogLinesDropped) -> EventText:
    lines = "1 log line was" if event.count == 1 else f"{event.count:,} log lines were"
    return EventText(Level.WARNING, "dropped", f"{lines} not written: nothing read them in time, or writing failed")


@describe.register
def _(event: SignalIgnored) -> EventText:
    return EventText(Level.NOTICE, "signal", f"{event.signal}: {event.reason}")


def banner(event: WorkerStarted) -> str:
    """What a person sees first: what is drained, where it is, and how to stop."""
    rows = [
        ("drains", f"{', '.join(event.queues)}{' (in this order)' if len(event.queues) > 1 else ''}"),
        *(("from", connection) for connection in event.connections),
        ("at once", f"{job_count(event.concurrency)}, each held by a lease of {event.lease:g} s while it runs"),
        *(("woken by", wakeups) for wakeups in event.wakeups),
        ("stop", f"Ctrl-C, or kill -TERM {event.pid}"),
    ]
    lines = [
        f"\x1b[1moutbox\x1b[0m  worker {event.worker}",
        *(f"  \x1b[2m{key:<8}\x1b[0m {text}" for key, text in rows),
    ]
    return "\n".join(lines)
