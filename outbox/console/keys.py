"""``unblock``: ordering keys that a failed job blocks."""

from __future__ import annotations

import click

from outbox.console.command import on_connection
from outbox.console.formatting import counted, line
from outbox.console.output import Output
from outbox.drivers.base import Driver
from outbox.errors import ConfigurationError
from outbox.job_changes import retry_jobs


@click.command()
@click.argument("key", required=False)
@click.option("--retry", is_flag=True, help="Put the failed job back, as the next of its key.")
@click.option("--skip", is_flag=True, help="Leave the failed job among the failed jobs, and go on with the next.")
@click.option(
    "--all", "everything", is_flag=True, help="Without KEY: all blocked keys. With KEY: --skip, for all of it."
)
@on_connection
async def unblock(driver: Driver, output: Output, key: str | None, retry: bool, skip: bool, everything: bool) -> int:
    """Let jobs of an ordering key run again that wait behind a failed one. Without options: list what blocks KEY, or
    all blocked keys."""
    policies = driver.policies
    if policies is None:
        raise ConfigurationError(f"keys are kept by the database, not by the connection {driver.name}")
    if retry and skip:
        raise click.UsageError("give --retry or --skip, not both")
    if key is None and (retry or skip) != everything:
        raise click.UsageError("give KEY, or --all with --retry or --skip")
    blocked = await policies.blocked_keys(key)
    if not blocked:
        message = "no key is blocked" if key is None else f"no failed job blocks the key {line(key)}"
        output.result({"connection": driver.name, "unblocked": [], "job_ids": []}, f"Nothing to do: {message}.")
        return 1 if key is not None else 0
    if not (retry or skip or everything):
        jobs = {str(job_id): name for job_id, name in blocked.items()}
        text = "\n".join(f"{line(name)}  {job_id}" for job_id, name in blocked.items())
        output.result({"connection": driver.name, "blocked": jobs}, text)
        return 0
    done = await (retry_jobs(driver, list(blocked)) if retry else policies.skip_failed(list(blocked)))
    names = sorted({blocked[job_id] for job_id in done})
    document = {"connection": driver.name, "unblocked": names, "job_ids": [str(job_id) for job_id in done]}
    verb = "Retried" if retry else "Skipped"
    output.result(document, f"{verb} {counted(len(done), 'failed job')}: {', '.join(map(line, names)) or 'none'}.")
    if len(done) < len(blocked):
        output.note("outbox: some jobs failed on another connection: `outbox retry ID --connection NAME`")
    return 0 if len(done) == len(blocked) else 1
