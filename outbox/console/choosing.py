"""Which jobs an operator means, and whether they mean it."""

from __future__ import annotations

import re
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
    with _interruptible():
        click.confirm(question, abort=True, err=True)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C end a wait for the keyboard. `asyncio.run` would only cancel the task that waits, which nothing ends
    before the answer."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


yes_option = click.option("--yes", "-y", "--force", "yes", is_flag=True, help="Do not ask.")
