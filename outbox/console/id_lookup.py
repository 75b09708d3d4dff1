"""Which jobs an operator means, and whether they mean it."""

from __future__ import annotations

import os
import re
import select
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID

import click

from outbox.ids import JobId

_DIGITS = re.compile(r"[0-9a-f]{8,32}")
_WHOLE_ID = 32

Find = Callable[[str], Awaitable[list[JobId]]]


@dataclass(frozen=True, slots=True)
class Chosen:
    """``unknown`` are those that mean no job, as they were typed."""

    ids: tuple[JobId, ...]
    unknown: tuple[str, ...]


async def choose(typed: Sequence[str], find: Find) -> Chosen:
    """Ids as typed: whole ones, or at least 8 characters of the beginning or the end, which ``find`` looks up.

    Raises:
        click.UsageError: one is no id, or means several jobs; nothing has been done yet.
    """
    ids: list[JobId] = []
    unknown: list[str] = []
    for one in typed:
        digits = one.strip().replace("-", "").replace("…", "").lower()
        if not _DIGITS.fullmatch(digits):
            raise click.UsageError(f"{one!r} is not a job's id, nor 8 or more characters of its beginning or end")
        found = [UUID(hex=digits)] if len(digits) == _WHOLE_ID else await find(digits)
        if len(found) > 1:
            raise click.UsageError(f"{one} may mean any of: {', '.join(map(str, found))}")
        if found:
            ids.append(found[0])
        else:
            unknown.append(one)
    return Chosen(tuple(ids), tuple(unknown))


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something is removed for good.

    Raises:
        click.UsageError: nobody is there to ask.
        click.Abort: the answer is no.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(
            "this removes jobs for good, and there is no terminal to ask on: add --yes if it is meant"
        )
    if not _answer_is_yes(question):
        raise click.Abort


def _answer_is_yes(question: str) -> bool:
    """Ask until the answer is yes or no; an empty one is no.

    Raises:
        Abort: Ctrl-C was pressed, or the input ended.
    """
    with _interrupts() as interrupted:
        while True:
            click.echo(f"{question} [y/N]: ", nl=False, err=True)
            try:
                # `input` would miss a Ctrl-C that comes in the moment before it waits.
                select.select([sys.stdin, interrupted], [], [])
                answer = sys.stdin.readline()
            except KeyboardInterrupt:
                answer = ""
            if not answer:
                click.echo(err=True)
                raise click.Abort
            if answer.strip().lower() in _ANSWERS:
                return _ANSWERS[answer.strip().lower()]
            click.echo("Error: answer y or n.", err=True)


_ANSWERS = {"y": True, "yes": True, "n": False, "no": False, "": False}


@contextmanager
def _interrupts() -> Iterator[int]:
    """A descriptor that can be read once a signal has come; Ctrl-C raises `KeyboardInterrupt`. `asyncio.run` would only
    cancel the task that waits, which nothing ends before the answer."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    woken = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield reading
    finally:
        signal.signal(signal.SIGINT, handler)
        signal.set_wakeup_fd(woken)
        os.close(reading)
        os.close(writing)


yes_option = click.option("--yes", "-y", "--force", "yes", is_flag=True, help="Do not ask.")
