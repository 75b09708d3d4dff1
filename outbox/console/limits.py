"""``limits``: rates, and their change at run time."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict

import click

from outbox import registry
from outbox.client_state import current_settings
from outbox.console.command import ListedByDefault, looking_at_connection, on_connection
from outbox.console.connections import Stores
from outbox.console.fitting_table import Column, FittingTable
from outbox.console.formatting import age, line
from outbox.console.output import Output
from outbox.console.suggestions import suggestion, unknown_name
from outbox.drivers.base import Driver
from outbox.drivers.values import LimitStatus
from outbox.errors import ConfigurationError, InvalidOption
from outbox.job import Job
from outbox.limits import limits_of
from outbox.policies.keys import MAX_LIMIT
from outbox.policies.rate_limits import Terms, check_name, check_terms, defined, defined_names, of_class


@click.group(cls=ListedByDefault, invoke_without_command=True)
def limits() -> None:
    """Show limits, and change them for all workers. Without a command: list, with its options."""


@limits.command("list")
@looking_at_connection
async def list_limits(driver: Driver, output: Output) -> None:
    """Show what is left of each rate, and how many jobs wait for it."""
    found = await limits_of(driver).list()
    if output.as_json:
        output.document({"connection": driver.name, "limits": [asdict(limit) for limit in found]})
    elif found:
        output.print(_table(found))
    else:
        output.print("No limits.")


@limits.command("set")
@click.argument("name")
@click.argument("value", metavar="RATE|N")
@click.option("--burst", type=int, help="Starts at once, 1 or more. Default: 1.")
@click.option("--align", type=click.Choice(["second", "minute", "hour", "day"]), help="Count by the clock.")
@on_connection
async def set_limit(
    driver: Driver, output: Output, name: str, value: str, burst: int | None, align: str | None
) -> None:
    """Change the limit NAME for all workers, until `outbox limits reset NAME`.

    RATE is such as 100/m. NAME is that of a RateLimit, or that of a job whose class has a rate of its own. A number N
    lets so many jobs of the class NAME run at once under one concurrency key.
    """
    store, name = limits_of(driver), check_name(name)
    if value.isascii() and value.isdigit():
        if burst is not None or align is not None:
            raise click.UsageError("--burst and --align belong to a rate such as 100/m")
        number = int(value)
        if not 1 <= number <= MAX_LIMIT:
            raise click.BadParameter(f"a number of jobs is from 1 to {MAX_LIMIT:,}, not {value}")
        await store.set(name, concurrency=number)
        document = {"connection": driver.name, "name": name, "concurrency": number}
        output.result(document, f"At most {number:,} jobs of {line(name)} run at once.")
        if (problem := await _without_key(driver, name)) is not None:
            output.note(problem)
        return
    try:
        terms = check_terms(Terms.model_construct(name=name, rate=value, burst=burst, align=align))
    except InvalidOption as error:
        raise click.BadParameter(str(error)) from error
    known = {limit.name for limit in await store.list()}
    await store.set(name, terms)
    document = {"connection": driver.name, "name": name, "rate": value, "burst": burst, "align": align}
    output.result(document, f"{line(name)} is {value}.")
    if name not in known and (problem := _undeclared(name)) is not None:
        output.note(problem)


@limits.command("reset")
@click.argument("name")
@on_connection
async def reset_limit(driver: Driver, output: Output, name: str) -> int:
    """Have the limit NAME be again as the jobs declare it."""
    known = await limits_of(driver).reset(name)
    text = f"{line(name)} is as its jobs declare it." if known else f"{line(name)} was not set."
    output.result({"connection": driver.name, "name": name, "reset": known}, text)
    return 0 if known else 1


async def _without_key(driver: Driver, name: str) -> str | None:
    """A message where no job of this name has a concurrency key. The limit is set all the same."""
    kind = _classes().get(name)
    if kind is None:
        return await unknown_name(Stores.of(driver), name)
    if getattr(kind, "concurrency_key", None) is not None:
        return None
    return f"outbox: {line(name)} has no concurrency_key: the limit is for jobs whose dispatch gives one"


def _undeclared(name: str) -> str | None:
    """A message where no code declares this rate limit. It is set all the same, for `outbox.limits.take`."""
    classes = _classes()
    rates = {job for job, kind in classes.items() if of_class(kind) is not None}
    if defined(name) is not None or name in rates:
        return None
    advice = suggestion(name, [*defined_names(), *rates])
    return f"outbox: no RateLimit, and no job with a rate, of OUTBOX_JOBS is named {line(name)}{advice}"


def _classes() -> dict[str, type[Job]]:
    """The job classes by their names. Modules that cannot be imported are left out."""
    with suppress(ConfigurationError):
        registry.import_jobs(current_settings().jobs)
    return registry.registered()


def _table(found: Sequence[LimitStatus]) -> FittingTable:
    table = FittingTable(
        [
            Column("Limit", 0, whole=False),
            Column("Key", 1, whole=False),
            Column("Rate", 1),
            Column("Burst", 4, number=True),
            Column("Left", 0, number=True),
            Column("Waiting", 0, number=True),
            Column("Next in", 2, number=True),
            Column("At once", 3, number=True),
            Column("Set", 5),
        ]
    )
    for limit in found:
        table.add(
            limit.name,
            limit.key or "",
            " ".join(part for part in (limit.rate, limit.align and f"by the {limit.align}") if part),
            "" if limit.rate is None or limit.align else str(limit.burst or 1),
            "" if limit.left is None else f"{limit.left:,}",
            f"{limit.waiting:,}",
            "" if limit.next_in is None else age(limit.next_in),
            "" if limit.concurrency is None else f"{limit.concurrency:,}",
            "by hand" if limit.is_set or limit.concurrency else "",
        )
    return table
