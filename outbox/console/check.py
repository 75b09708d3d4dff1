"""``check``: check everything that jobs depend on, before a deploy or at night."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import click
from rich.text import Text

from outbox.console.command import connection_name, json_option
from outbox.console.finding import Finding, Level
from outbox.console.formatting import counted, line
from outbox.console.health_checks import job_classes, run_checks
from outbox.console.json_views import Document
from outbox.console.output import Output

_STYLES = {Level.OK: "green", Level.INFO: "dim", Level.WARNING: "yellow", Level.PROBLEM: "bold red"}


@click.command()
@click.option(
    "--connection",
    type=connection_name,
    metavar="NAME",
    help="Only this connection. Default: all connections of the settings and jobs.",
)
@json_option
def check(connection: str | None, as_json: bool) -> None:
    """Check settings, jobs, connections, servers and tables. Exits 1 if there is a problem."""
    code = asyncio.run(_check(Output(as_json), connection))
    click.get_current_context().exit(code)


async def _check(output: Output, connection: str | None) -> int:
    findings: list[Finding] = []
    # Closed here: where the output cannot be written, the loop ends before the checks have.
    async with aclosing(run_checks(connection)) as checks:
        async for finding in checks:
            findings.append(finding)
            if not output.as_json:
                output.print(_line(finding))
    problems = sum(finding.level is Level.PROBLEM for finding in findings)
    warnings = sum(finding.level is Level.WARNING for finding in findings)
    if output.as_json:
        output.document(_document(findings))
    else:
        output.print(f"{counted(problems, 'problem')}, {counted(warnings, 'warning')}")
    return 1 if problems else 0


def _line(finding: Finding) -> Text:
    advice = f" → {finding.advice}" if finding.advice else ""
    text = Text(f"{finding.level:<8} ", style=_STYLES[finding.level])
    return text.append(line(f"{finding.subject:<10} {finding.message}{advice}", limit=None), style="not dim default")


def _document(findings: list[Finding]) -> Document:
    return {
        "ok": not any(finding.level is Level.PROBLEM for finding in findings),
        "findings": [
            {
                "level": finding.level.value,
                "subject": finding.subject,
                "message": finding.message,
                "advice": finding.advice,
            }
            for finding in findings
        ],
        "jobs": [
            {
                "name": job.name,
                "aliases": list(job.aliases),
                "class": f"{job.__module__}.{job.__qualname__}",
                "queue": job.queue,
                "connection": job.connection,
            }
            for job in job_classes()
        ],
    }
