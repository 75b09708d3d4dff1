"""``python -m outbox.work [MODULE[:ATTRIBUTE]]``: a worker, or several under a supervisor.

Exit codes are those of `outbox.runtime.process.exit_codes`.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from outbox.client_state import current_client
from outbox.connections import open_driver
from outbox.drivers.base import Driver
from outbox.errors import ConfigurationError
from outbox.events import Events
from outbox.registry import import_failure, import_jobs, registered
from outbox.runtime.health.worker_health import WorkerHealth
from outbox.runtime.process.exit_codes import ExitCode, before_end
from outbox.runtime.process.patched_python import refuse_patched_python
from outbox.runtime.process.process_state import ProcessState
from outbox.runtime.process.reload import Reloader, run_reloading
from outbox.runtime.process.signals import Signals
from outbox.runtime.process.supervisor import Supervisor, worker_command
from outbox.runtime.process.systemd import notify_systemd
from outbox.runtime.process.worker_process import Supervised, leave, run_worker
from outbox.runtime.relay_loop import SAFETY_NET, relay_loops
from outbox.runtime.reporting.logs import EventLog
from outbox.runtime.worker import Worker
from outbox.settings import Settings, WorkerOptions
from outbox.settings_files import import_from_here
from outbox.standard_streams import give_up_output, prepare_streams
from outbox.wakeups.selector import WakeupSelector, binary_log
from outbox.wakeups.supervisor_fanout import FanoutClient, FanoutServer

_log = logging.getLogger("outbox.runtime")

Function = TypeVar("Function", bound=Callable[..., Any])

EXIT_CODES = """\b
Exit codes:
  0    asked to stop, or done (--once, --stop-when-empty, --max-jobs, --max-time)
  1    an unexpected error
  2    settings, flags, the database's version or its tables are wrong
  12   --memory was reached
  13   only from a process to its supervisor (--processes): replace me; it never leaves the command
  14   every slot is taken by a handler that does not end
  15   a handler blocked the event loop long past its timeout, or past --grace
  130  stopped hard, by a second INT, TERM, QUIT, HUP or XCPU

\b
TERM, INT, QUIT, HUP, XCPU: claim no more, finish what runs within --grace, hand back the rest, exit 0.
USR2: claim no more, until CONT. USR1 and ALRM: nothing.
"""


def _flag(*names: str, **attributes: Any) -> Callable[[Function], Function]:
    """An option that is not passed on unless it is given, so that profile, environment and pyproject.toml count."""
    return click.option(*names, default=None, **attributes)


class _Command(click.Command):
    """Writes its help, where it can be written: a worker writes the rest by a log of its own."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except OSError as error:
            give_up_output(error, "outbox.work")
            raise SystemExit(ExitCode.ERROR) from None


@click.command(
    cls=_Command, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}, epilog=EXIT_CODES
)
@click.argument("profile", metavar="[MODULE[:ATTRIBUTE]]", required=False)
@_flag("--connection", metavar="NAME[,NAME]", help="Connections to drain. Default: QUEUE_CONNECTION.")
@_flag("--queue", metavar="NAME[,NAME]", help="Queues, in order of preference. Default: default.")
@_flag("--concurrency", type=int, metavar="N", help="Jobs at once in one process. Default: 20.")
@_flag("--processes", type=int, metavar="N", help="Processes, watched by a supervisor if more than one.")
@_flag("--max-jobs", type=int, metavar="N", help="Stop after N attempts. With several processes: replace each.")
@_flag("--max-time", type=float, metavar="SECONDS", help="Stop after so long. With several processes: replace each.")
@_flag("--max-tries", type=int, metavar="N", help="Attempts for jobs that do not say. Default: 3.")
@_flag("--timeout", type=float, metavar="SECONDS", help="For jobs that do not say; 0: no limit. Default: 60.")
@_flag("--backoff", metavar="SECONDS[,…]", help="For jobs that do not say. Default: 1,10,60.")
@_flag("--sleep", type=float, metavar="SECONDS", help="Pause between two looks for work. Default: 1.")
@_flag("--wake", type=click.Choice(["auto", "poll", "redis", "binlog"]), help="What tells of new jobs. Default: auto.")
@_flag("--rest", type=float, metavar="SECONDS", help="Pause after each job, in its slot.")
@_flag("--memory", type=int, metavar="MIB", help="Stop above so much memory. With several processes: replace each.")
@_flag("--aging", type=float, metavar="SECONDS", help="Claim low priorities too that wait for longer. Default: never.")
@_flag("--lease", type=float, metavar="SECONDS", help="How long a dead worker's jobs stay its own. Default: 30.")
@_flag("--grace", type=float, metavar="SECONDS", help="What running jobs get to finish after TERM. Default: 30.")
@_flag("--middleware", metavar="MODULE:FUNCTION[,…]", help="Functions around the handlers of all jobs.")
@_flag("--health-port", type=int, metavar="PORT", help="Answer /live, /ready and /metrics over HTTP.")
@_flag("--health-host", metavar="ADDRESS", help="Where --health-port listens. Default: 127.0.0.1.")
@_flag("--lifespan", metavar="MODULE:FUNCTION", help="What makes the resources that handlers take.")
@_flag("--once", is_flag=True, help="Look once, run the next job if there is one, and stop.")
@_flag("--stop-when-empty", is_flag=True, help="Stop when nothing is ready, delayed or reserved.")
@_flag("--name", metavar="NAME", help="What logs and `outbox workers` call it. Default: host:pid.")
@_flag("--json", "json_logs", is_flag=True, help="Log one JSON object per line.")
@_flag("--relay", is_flag=True, help="Only move jobs that were dispatched to Redis in a transaction there.")
@_flag("--reload", is_flag=True, help="For development: start anew when Python files change.")
def cli(profile: str | None, **flags: Any) -> None:
    """Run the jobs of a queue.

    Without an argument, a worker from the settings; with one, the worker profile in that module, for example
    workers.mail (attribute `worker`). Flags go before the profile, then the environment and .env (OUTBOX_…),
    then [tool.outbox] in pyproject.toml.
    """
    supervised = Supervised.take()
    given = {name: value for name, value in flags.items() if value is not None}
    signals = Signals(ExitCode.OK if supervised is None else ExitCode.RECYCLE)
    signals.install()
    try:
        options = _profile(profile).overridden(**given) if profile else WorkerOptions.load(**given)
        events = Events()
        log = EventLog(events, sys.stdout, as_json=options.json_logs)
        before_end(partial(_say_what_is_left, log))
        if supervised is None and (options.processes > 1 or options.reload):
            log.follow_application()
            code = run_supervised(options, events, signals, sys.argv[1:])
        else:
            notify_systemd(events, supervised=supervised is not None)
            code = run_here(options, events, log, signals, supervised)
    except ConfigurationError as error:
        raise Misconfigured(" ".join(str(error).split())) from error
    leave(code)


class Misconfigured(click.ClickException):
    exit_code = ExitCode.CONFIGURATION

    def show(self, file: Any = None) -> None:
        # The exit code says it as well, where stderr cannot be written.
        with suppress(OSError):
            click.echo(f"outbox.work: {self.format_message()}", file=file, err=file is None)


def _profile(reference: str) -> WorkerOptions:
    """The worker profile at ``module`` or ``module:attribute``."""
    module, _, attribute = reference.partition(":")
    attribute = attribute or "worker"
    try:
        imported = importlib.import_module(module)
    except ConfigurationError as error:
        raise ConfigurationError(f"the worker profile {reference!r}: {error}") from error
    except (Exception, SystemExit) as error:
        raise ConfigurationError(
            f"the worker profile {reference!r} cannot be imported: {import_failure(error)}"
        ) from error
    try:
        profile = getattr(imported, attribute)
    except AttributeError:
        raise ConfigurationError(f"the module {module!r} has no attribute {attribute!r}: name the profile") from None
    if not isinstance(profile, WorkerOptions):
        raise ConfigurationError(f"{module}:{attribute} is a {type(profile).__name__}, not outbox.WorkerOptions")
    return profile


def run_here(
    options: WorkerOptions, events: Events, log: EventLog, signals: Signals, supervised: Supervised | None
) -> int:
    settings = Settings.load()
    refuse_patched_python()
    # Before the application's modules: drivers load less of their packages than these would.
    drivers = [] if options.relay else _open_drivers(settings, options)
    if not options.relay:
        import_jobs(settings.jobs)
        refuse_patched_python()
    log.follow_application()
    if (client := current_client()).events is not None:
        events.listen_to_batches(client.events.emit_all)
    process = ProcessState(signals, log, events)
    health = WorkerHealth() if options.health_port is not None else None
    worker = _worker(settings, options, events, supervised, drivers, process, health)
    if health is not None:
        # Here, because a worker without the port needs no HTTP.
        from outbox.health_port import serve_worker

        serve_worker(options, worker, health, events)
    return run_worker(worker, supervised, signals=signals, process=process, events=events)


def _open_drivers(settings: Settings, options: WorkerOptions) -> list[Driver]:
    return [open_driver(settings, each) for each in options.connection or (settings.connection,)]


def _worker(
    settings: Settings,
    options: WorkerOptions,
    events: Events,
    supervised: Supervised | None,
    drivers: Sequence[Driver],
    process: ProcessState,
    health: WorkerHealth | None,
) -> Worker:
    name = options.name or f"{socket.gethostname()}:{os.getpid()}"
    if supervised is not None and options.name:
        name = f"{options.name}:{supervised.index}"
    if options.relay:
        relays = relay_loops(settings, events, interval=options.sleep)
        if not relays:
            raise ConfigurationError("--relay moves jobs from a database to Redis: set DATABASE_URL and REDIS_URL")
        return Worker(options, [], events, name=name, relays=relays, process=process, health=health)
    if not registered():
        raise ConfigurationError(
            "no job class is known, so that every job would fail: set OUTBOX_JOBS to the modules that define them"
        )
    _warn_of_queues_without_jobs(options.queue)
    wakeup_selector = WakeupSelector(settings, options.wake, events, FanoutClient.take())
    # A worker that waits for the last job does not leave it lying about.
    interval = options.sleep if options.stop_when_empty else SAFETY_NET
    relays = relay_loops(settings, events, interval=interval)
    return Worker(
        options,
        drivers,
        events,
        name=name,
        wakeup_selector=wakeup_selector,
        relays=relays,
        process=process,
        health=health,
    )


def _warn_of_queues_without_jobs(queues: Sequence[str]) -> None:
    """A job may be dispatched to another queue than its class says, so that this is no error."""
    known = sorted({job.queue for job in registered().values()})
    if not set(queues) & set(known):
        _log.warning(
            "this worker drains %s, and the job classes that it knows are for %s: use --queue, unless jobs are "
            "dispatched to another queue than their class says",
            ", ".join(queues),
            ", ".join(known),
        )


def _say_what_is_left(log: EventLog) -> None:
    log.flush()
    if log.dropped and sys.stderr is not None:
        print(f"outbox.work: {log.dropped:,} log lines were not written", file=sys.stderr)


def run_supervised(options: WorkerOptions, events: Events, signals: Signals, arguments: Sequence[str]) -> int:
    fanout = FanoutServer(partial(binary_log, Settings.load()))
    health = None
    if options.health_port is not None:
        from outbox.health_port import serve_supervisor

        health = serve_supervisor(options, events)
    supervisor = Supervisor(
        worker_command(arguments),
        options.processes,
        events,
        reloads=options.reload,
        fanout=fanout,
        health=health,
        signals=signals,
        ends_by_itself=options.once or options.stop_when_empty,
    )
    if options.reload:
        return asyncio.run(run_reloading(supervisor, Reloader(supervisor, events, Path.cwd())))
    return asyncio.run(supervisor.run())


def main() -> NoReturn:
    import_from_here()
    # What jobs print appears between the worker's own lines.
    prepare_streams(line_buffering=True)
    cli(prog_name="python -m outbox.work")
    raise SystemExit(ExitCode.OK)


if __name__ == "__main__":
    main()
