"""``dispatch``: dispatch a job from the command line, for cron or to try it."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import click

from outbox import registry
from outbox.client_state import current_settings
from outbox.console.command import connection_name, json_option, recorded
from outbox.console.command import queue as queue_type
from outbox.console.output import Output
from outbox.console.suggestions import suggestion
from outbox.console.time_spans import parse_span
from outbox.dispatch import dispatch as dispatch_job
from outbox.errors import InvalidJob, InvalidPayload, UnknownJob
from outbox.ids import JobId
from outbox.job import Job
from outbox.open_drivers import disconnect
from outbox.payload import load


class Delay(click.ParamType):  # type: ignore[type-arg,unused-ignore] # generic from click 8.2 on
    """``90``, ``90s``, ``5m``, ``2h``, ``1d``. Its value is seconds."""

    name = "delay"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds = parse_span(f"{value}s") if str(value)[-1:].isdigit() else parse_span(str(value))
        if seconds is None:
            self.fail(f"{value!r} is not a time like 90, 90s, 5m, 2h or 1d", param, ctx)
        return seconds


@click.command()
@click.argument("name")
@click.argument("payload", default="{}")
@click.option("--connection", type=connection_name, metavar="NAME", help="Default: the job's, else QUEUE_CONNECTION.")
@click.option("--queue", type=queue_type, help="Default: the job's.")
@click.option("--delay", type=Delay(), metavar="TIME", help="Seconds, or 90s, 5m, 2h, 1d.")
@click.option("--priority", type=int, metavar="N", help="0 (first) to 9. Default: the job's.")
@click.option("--max-tries", type=int, metavar="N", help="Default: the job's.")
@click.option("--timeout", type=float, metavar="SECONDS", help="Per attempt; 0: no limit. Default: the job's.")
@json_option
def dispatch(name: str, payload: str, as_json: bool, **options: Any) -> None:
    """Dispatch the job NAME of OUTBOX_JOBS, with its fields as a JSON object; - reads them from the standard input.

    NAME is the name of the job, or of its class if the name is unique. The fields are validated before the job is
    stored.
    """
    settings = current_settings()
    registry.import_jobs(settings.jobs)
    kind = _resolve(name)
    job = _make(kind, sys.stdin.read() if payload == "-" else payload)
    target = {"name": kind.name} | {name: value for name, value in options.items() if name != "connection"}
    with recorded(settings.connection, target):
        job_id = asyncio.run(_dispatch(job, options))
    output = Output(as_json)
    document = {"job_id": str(job_id), "name": kind.name}
    output.result(document if job_id.created else document | {"created": False}, str(job_id))
    if not job_id.created:
        output.note("outbox: no job was made: its `dispatch_if` says no, or a job of its unique key waits")


async def _dispatch(job: Job, options: dict[str, Any]) -> JobId:
    try:
        return await dispatch_job(job, **options)
    finally:
        await disconnect()


def _resolve(name: str) -> type[Job]:
    """
    Raises:
        UnknownJob: no registered class matches, or several do.
    """
    known = registry.registered()
    if name in known:
        return known[name]
    named = sorted({kind.name: kind for kind in known.values() if kind.__name__ == name}.items())
    if len(named) == 1:
        return named[0][1]
    if named:
        raise UnknownJob(f"{name} may mean any of: {', '.join(each for each, _ in named)}")
    advice = suggestion(name, known) or ": import its module with OUTBOX_JOBS"
    raise UnknownJob(f"no job is named {name}{advice}")


def _make(kind: type[Job], payload: str) -> Job:
    """
    Raises:
        InvalidJob: the payload is not JSON, or does not validate.
    """
    try:
        return load(kind, kind.name, payload)
    except InvalidPayload as error:
        raise InvalidJob(str(error)) from error
