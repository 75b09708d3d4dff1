"""Options that select failed jobs: ``--name``, ``--error``, ``--group``, ``--since``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from outbox.console.formatting import age, line
from outbox.console.time_spans import Since
from outbox.drivers.filters import FailedFilter
from outbox.fingerprint import is_fingerprint


def filter_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Pass the options to the command as ``matching``, a `FailedFilter`."""

    @click.option("--name", metavar="NAME", help="Only jobs of this name, as `outbox failed` shows it.")
    @click.option("--error", metavar="TEXT", help="Only this type of exception, or this text in its message.")
    @click.option("--group", metavar="FINGERPRINT", help="Only this group of `outbox failed --groups`.")
    @click.option("--since", type=Since(), metavar="TIME", help="Only those that failed since: 30m, 2h, 3d, or a date.")
    @functools.wraps(function)
    def choose(
        *args: Any, name: str | None, error: str | None, group: str | None, since: float | None, **parameters: Any
    ) -> Any:
        if error == "" or name == "":
            raise click.UsageError("--name and --error take a text")
        if group is not None and not is_fingerprint(group):
            raise click.UsageError("--group takes the 16 hexadecimal digits that `outbox failed --groups` shows")
        return function(*args, matching=FailedFilter(name, error, since, group), **parameters)

    return choose


def which_failed(queue: str | None, matching: FailedFilter) -> str:
    """Describe the selected jobs in a question."""
    which = f"failed jobs of {queue}" if queue else "failed jobs"
    if matching.name is not None:
        which += f" named {line(matching.name)}"
    if matching.error is not None:
        which += f" with the error {line(matching.error)}"
    if matching.group is not None:
        which += f" of the group {matching.group}"
    if matching.since is not None:
        which += f" of the last {age(matching.since)}"
    return which
