"""What commands share: the driver of ``--connection``, ``--json``, errors as one line, and exit codes.

| exit code | |
|---|---|
| 0 | done |
| 1 | not done, or not all of it: no such job, the database does not answer, `check` found a problem |
| 2 | the settings, the flags or the tables are wrong |
"""

from __future__ import annotations

import asyncio
import functools
import getpass
import logging
import math
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, is_dataclass
from typing import Any, TypeVar

import click

from outbox.client_state import current_client
from outbox.connections import open_driver
from outbox.console.formatting import one_line
from outbox.console.output import Output
from outbox.drivers.audit import LONGEST_BY, acting
from outbox.errors import ConfigurationError, InvalidOption, OutboxError
from outbox.options import check_queue
from outbox.settings import Settings
from outbox.telling_workers import pass_on_policy_news

Work = Callable[..., Awaitable[int | None]]
Function = TypeVar("Function", bound=Callable[..., Any])


class Commands(click.Group):
    """A group whose commands report an `OutboxError` as one line and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        # asyncmy logs every warning of the server. Those that matter are raised as errors.
        logging.getLogger("asyncmy").setLevel(logging.ERROR)
        try:
            return super().invoke(ctx)
        except ConfigurationError as error:
            raise Misconfigured(one_line(str(error))) from error
        except OutboxError as error:
            raise Refused(one_line(str(error))) from error


class ListedByDefault(click.Group):
    """A group that runs its command ``list`` where no command is named, with the options that are given."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        begins = args[0] if args else "-"
        if begins.startswith("-") and begins not in self.get_help_option_names(ctx):
            args = ["list", *args]
        return super().parse_args(ctx, args)


class Refused(click.ClickException):
    exit_code = 1

    def show(self, file: Any = None) -> None:
        # If stderr cannot be written, the exit code still tells.
        with suppress(OSError):
            click.echo(f"outbox: {self.format_message()}", file=file, err=file is None)


class Misconfigured(Refused):
    exit_code = 2


def queue(name: str) -> str:
    """A parameter's type."""
    try:
        return check_queue(name)
    except InvalidOption as error:
        raise click.BadParameter(str(error)) from error


def connection_name(name: str) -> str:
    """A parameter's type. An empty name, as of a variable that is not set, is not the default."""
    if not name:
        raise click.BadParameter("it is the name of a connection, not ''")
    return name


class Finite(click.FloatRange):
    """A number in a range, which ``nan`` and ``inf`` are not."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a number", param, ctx)
        return number


def actor() -> str:
    """Who runs the command, for the audit log: user and host."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError, ImportError):  # a user id without a name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"[:LONGEST_BY]


def json_option(function: Function) -> Function:
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")(function)


def on_connection(work: Work, *, only_looks: bool = False) -> Callable[..., None]:
    """A command that awaits ``work(driver, output, …)`` for ``--connection``, and exits with its result. One that
    ``only_looks`` reads in one transaction that cannot write, from the replica if the connection has one."""

    @click.option(
        "--connection",
        type=connection_name,
        metavar="NAME",
        help="A connection of the settings. Default: QUEUE_CONNECTION.",
    )
    @json_option
    @functools.wraps(work)
    def run(connection: str | None, as_json: bool, **parameters: Any) -> None:
        settings = Settings.load()
        name, output, does = connection or settings.connection, Output(as_json), _look if only_looks else _run
        code = asyncio.run(does(work, settings, name, output, parameters))
        click.get_current_context().exit(code or 0)

    return run


def looking_at_connection(work: Work) -> Callable[..., None]:
    """`on_connection` for a command that changes nothing."""
    return on_connection(work, only_looks=True)


async def _look(
    work: Work, settings: Settings, connection: str, output: Output, parameters: dict[str, Any]
) -> int | None:
    driver = open_driver(settings, connection, reads_replica=True)

    async def look() -> int | None:
        return await work(driver, output, **parameters)

    try:
        return await driver.read_only(look)
    finally:
        await driver.close()


async def _run(
    work: Work, settings: Settings, connection: str, output: Output, parameters: dict[str, Any]
) -> int | None:
    driver = open_driver(settings, connection)
    pass_on_policy_news(current_client(), driver)
    try:
        with recorded(connection, parameters):
            return await work(driver, output, **parameters)
    finally:
        await driver.close()


def recorded(connection: str, parameters: dict[str, Any]) -> AbstractContextManager[None]:
    """In the block, what the command with these parameters changes is an entry of the audit log."""
    command = click.get_current_context().command_path.partition(" ")[2]
    return acting(actor(), command, _target(parameters) or {"connection": connection})


def _target(parameters: dict[str, Any]) -> dict[str, Any]:
    """What a command acts on, for the audit log. It is empty where the command acts on all of a connection."""
    target: dict[str, Any] = {}
    for name, value in parameters.items():
        target |= asdict(value) if is_dataclass(value) and not isinstance(value, type) else {name: value}
    said = {name: value for name, value in target.items() if name not in {"yes", "everything"}}
    return {name: value for name, value in said.items() if value is not None and value is not False and value != ()}
