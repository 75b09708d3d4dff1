"""The connections that a command reads: the one of ``--connection``, or all of the settings."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import click

from outbox.connections import all_connections, open_driver
from outbox.console.command import connection_name, json_option
from outbox.console.formatting import one_line
from outbox.console.json_views import Document
from outbox.console.output import Output
from outbox.drivers.base import Driver
from outbox.errors import BackendUnavailable, ConfigurationError, OutboxError
from outbox.settings import Settings

T = TypeVar("T")
Work = Callable[..., Awaitable[int | None]]


class Stores:
    """Drivers of several connections. After an error a connection is skipped and reported at the end."""

    def __init__(self, settings: Settings, names: list[str]) -> None:
        self.names = names
        self.errors: dict[str, OutboxError] = {}
        self.settings = settings
        self._drivers: dict[str, Driver] = {}

    @classmethod
    def of(cls, driver: Driver) -> Stores:
        """Wrap an open driver, which the caller closes."""
        stores = cls(Settings(), [driver.name])
        stores._drivers[driver.name] = driver
        return stores

    @property
    def several(self) -> bool:
        return len(self.names) > 1

    async def ask(self, question: Callable[[Driver], Awaitable[T]]) -> dict[str, T]:
        """Ask every connection, each in a transaction that only reads. Returns the answers by name.

        Raises:
            OutboxError: no connection answered. It is the error of the first one.
        """
        return await self.change(lambda driver: driver.read_only(functools.partial(question, driver)))

    async def change(self, work: Callable[[Driver], Awaitable[T]]) -> dict[str, T]:
        """Do something in every connection, in as many transactions as it takes. Returns the results by name.

        Raises:
            OutboxError: no connection answered. It is the error of the first one.
        """
        answers: dict[str, T] = {}
        for name in self.names:
            if name in self.errors:
                continue
            try:
                answers[name] = await work(self._driver(name))
            except (BackendUnavailable, ConfigurationError) as error:
                self.errors[name] = error
        if not answers and self.errors:
            raise next(iter(self.errors.values()))
        return answers

    def _driver(self, name: str) -> Driver:
        if name not in self._drivers:
            self._drivers[name] = open_driver(self.settings, name, reads_replica=True)
        return self._drivers[name]

    def forget_errors(self) -> None:
        """Include skipped connections again."""
        self.errors = {}

    def document(self, **values: Any) -> Document:
        """Add the names and errors of the connections. ``connection`` is None if there are several."""
        head: Document = {"connection": None if self.several else self.names[0]}
        if self.several:
            head["connections"] = self.names
        if self.errors:
            head["errors"] = {name: one_line(str(error)) for name, error in self.errors.items()}
        return head | values

    def report(self, output: Output) -> int:
        """Report the connections that were skipped. Returns the exit code."""
        for name, error in self.errors.items():
            output.note(f"outbox: {name} is left out: {one_line(str(error))}")
        configured = any(isinstance(error, ConfigurationError) for error in self.errors.values())
        return 2 if configured else 1 if self.errors else 0

    async def close(self) -> None:
        for driver in self._drivers.values():
            await driver.close()


def on_connections(work: Work) -> Callable[..., None]:
    """A command that awaits ``work(stores, output, …)`` with one or all connections, and exits with its result."""

    @click.option(
        "--connection", type=connection_name, metavar="NAME", help="Only this connection. Default: all in the settings."
    )
    @json_option
    @functools.wraps(work)
    def run(connection: str | None, as_json: bool, **parameters: Any) -> None:
        settings = Settings.load()
        names = [connection] if connection else all_connections(settings)
        code = asyncio.run(_run(work, Stores(settings, names), Output(as_json), parameters))
        click.get_current_context().exit(code)

    return run


async def _run(work: Work, stores: Stores, output: Output, parameters: dict[str, Any]) -> int:
    try:
        code = await work(stores, output, **parameters)
        return stores.report(output) or code or 0
    finally:
        await stores.close()
