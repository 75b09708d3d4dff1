"""``python -m outbox`` and ``outbox``: the operator's commands."""

from __future__ import annotations

import sys
from typing import NoReturn

import click

from outbox.console import (
    audit,
    autoscale,
    batches,
    bulk,
    check,
    ddl,
    dispatch,
    failed_jobs,
    job_changes,
    jobs,
    keys,
    limits,
    monitor,
    operations,
    pauses,
    queues,
    rekey,
    schedules,
    workers,
)
from outbox.console.command import Commands
from outbox.settings_files import import_from_here
from outbox.standard_streams import give_up_output, prepare_streams
from outbox.web import command as web_command


@click.group(cls=Commands, no_args_is_help=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="outbox-queue")
def cli() -> None:
    """Look after the jobs of outbox. Settings come from the environment, .env and pyproject.toml.

    A job is named by its id, or by the beginning or the end of its id: at least 8 of its characters.
    """


for command in (
    dispatch.dispatch,
    jobs.jobs,
    jobs.show,
    failed_jobs.failed,
    failed_jobs.retry,
    failed_jobs.forget,
    failed_jobs.flush,
    failed_jobs.prune,
    queues.clear,
    pauses.pause,
    pauses.resume,
    queues.cancel,
    job_changes.reschedule,
    job_changes.change,
    queues.stats,
    autoscale.autoscale,
    keys.unblock,
    batches.batches,
    bulk.bulk,
    operations.operations,
    audit.audit,
    limits.limits,
    monitor.monitor,
    workers.workers,
    schedules.schedule,
    rekey.rekey,
    check.check,
    ddl.ddl,
    web_command.web,
):
    cli.add_command(command)


def main() -> NoReturn:
    import_from_here()
    prepare_streams()
    sys.exit(_run())


def _run() -> int:
    """The exit code. Output that cannot be written is one line, and not a success."""
    try:
        try:
            cli(prog_name="outbox")
        except SystemExit as ended:
            # Now, because Python's own attempt at its end would come with a traceback.
            sys.stdout.flush()
            sys.stderr.flush()
            return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except OSError as error:
        give_up_output(error, "outbox")
    return 1


if __name__ == "__main__":
    main()
