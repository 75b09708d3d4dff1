"""``python -m outbox`` and ``outbox``: the operator's commands."""

from __future__ import annotations

import io
import sys

import click

from outbox.console import checking, ddl, dispatching, failing, jobs, monitoring, queueing, workers
from outbox.console.command import Commands
from outbox.settings_files import working_directory


@click.group(cls=Commands, no_args_is_help=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="outbox-queue")
def cli() -> None:
    """Look after the jobs of outbox. Settings come from the environment, .env and pyproject.toml.

    A job is named by its id, or by the beginning or the end of its id: at least 8 of its characters.
    """


for command in (
    dispatching.dispatch,
    jobs.jobs,
    jobs.show,
    failing.failed,
    failing.retry,
    failing.forget,
    failing.flush,
    failing.prune,
    queueing.clear,
    queueing.pause,
    queueing.resume,
    queueing.cancel,
    queueing.stats,
    monitoring.monitor,
    workers.workers,
    checking.check,
    ddl.ddl,
):
    cli.add_command(command)


def main() -> None:
    # As `python -m` does: `check` imports the application's jobs from the directory in which it is run.
    here = working_directory()
    if here is not None and str(here) not in sys.path:
        sys.path.insert(0, str(here))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A payload holds any character, and cron's idea of an encoding may be ASCII.
            stream.reconfigure(errors="backslashreplace")
    cli(prog_name="outbox")


if __name__ == "__main__":
    main()
