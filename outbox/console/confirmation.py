"""Asks before jobs are removed for good."""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click


def confirm(question: str, *, yes: bool, what: str = "this removes jobs for good") -> None:
    """Ask ``question``, unless ``yes``.

    Raises:
        click.UsageError: the standard input is no terminal.
        click.Abort: the answer is no.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"{what}, and there is no terminal to ask on: add --yes if it is meant")
    if not _answer_is_yes(question):
        raise click.Abort


def _answer_is_yes(question: str) -> bool:
    """Ask until the answer is yes or no. An empty answer is no.

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
    """A descriptor that is readable after a signal, and Ctrl-C as `KeyboardInterrupt`.

    Without it, `asyncio.run` would cancel the task, which would not end before the answer.
    """
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
