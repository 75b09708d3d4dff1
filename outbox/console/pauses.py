"""``pause`` and ``resume``: of queues, a job class, a key, or a whole connection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from outbox.console.command import actor, on_connection
from outbox.console.command import queue as queue_name
from outbox.console.connections import Stores
from outbox.console.formatting import line
from outbox.console.json_views import timestamp
from outbox.console.output import Output
from outbox.console.suggestions import unknown_name, unknown_queue
from outbox.console.time_spans import parse_span
from outbox.drivers.audit import acting
from outbox.drivers.base import Driver
from outbox.drivers.pauses import Pause, PauseKind, PauseTarget, check_text, terms_text
from outbox.errors import InvalidOption
from outbox.pausing import LONGEST_SECONDS, pause_on, resume_on, terms_of

Function = TypeVar("Function", bound=Callable[..., Any])


class _Span(click.ParamType):  # type: ignore[type-arg,unused-ignore] # generic from click 8.2 on
    """``90s``, ``30m``, ``2h``, ``3d`` or ``1w``, as seconds."""

    name = "span"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds = value if isinstance(value, float) else parse_span(value)
        if seconds is None or not 0 < seconds <= LONGEST_SECONDS:
            self.fail(f"{value!r} is not a time like 90s, 30m, 2h or 3d within ten years", param, ctx)
        return seconds


def _text(text: str) -> str:
    """A parameter's type."""
    try:
        return check_text(text, "it") or ""
    except InvalidOption as error:
        raise click.BadParameter(str(error)) from error


def _targets(work: Function) -> Function:
    for add in (
        click.option("--key", type=_text, metavar="KEY", help="Jobs with this key, as `outbox jobs ID` shows it."),
        click.option("--job", type=_text, metavar="NAME", help="Jobs of this class, as `outbox jobs` shows it."),
        click.argument("queues", metavar="[QUEUE]...", type=queue_name, nargs=-1),
    ):
        work = add(work)
    return work


@click.command()
@_targets
@click.option("--reason", type=_text, metavar="TEXT", help="Why: it is shown wherever the pause is.")
@click.option("--for", "for_", type=_Span(), metavar="TIME", help="When it ends by itself: 90s, 30m, 2h, 3d.")
@on_connection
async def pause(
    driver: Driver,
    output: Output,
    queues: Sequence[str],
    job: str | None,
    key: str | None,
    reason: str | None,
    for_: float | None,
) -> None:
    """Stop workers from claiming jobs of QUEUE, of a class, of a key, or, with --connection alone, of a connection.

    Running jobs and dispatches continue. Of a pause that is there, --reason and --for replace the reason and the end.
    """
    targets = _chosen(driver, queues, job, key)
    unknown = [found for each in targets if (found := await _unknown(driver, each))]
    new = []
    for each in targets:
        with acting(actor(), "pause", {each.kind: each.name, "reason": reason, "for": for_}):
            new += [each] if await pause_on(driver, each, terms_of(reason, None, for_)) else []
    there = {each.target: each for each in await driver.pauses.all()}
    if output.as_json:
        document = {
            "connection": driver.name,
            "paused": [each.name for each in new],
            "already_paused": [each.name for each in targets if each not in new],
        }
        terms = {"reason": reason, "until": _until(there.get(targets[0]))} if reason or for_ else {}
        output.document(document | _kind(targets) | terms)
    else:
        for each in targets:
            output.print(_said(each, there.get(each), is_new=each in new))
    for problem in unknown:
        output.note(problem)


def _said(target: PauseTarget, pause: Pause | None, *, is_new: bool) -> str:
    terms = "" if pause is None else line(terms_text(pause), None)
    return f"{line(target.name)} is paused{terms}." if is_new else f"{line(target.name)} was paused already{terms}."


def _kind(targets: Sequence[PauseTarget]) -> dict[str, str]:
    """Of what are not queues."""
    kind = targets[0].kind
    return {} if kind is PauseKind.QUEUE else {"kind": kind.value}


def _until(pause: Pause | None) -> str | None:
    return None if pause is None or pause.until is None else timestamp(pause.until)


@click.command()
@_targets
@on_connection
async def resume(driver: Driver, output: Output, queues: Sequence[str], job: str | None, key: str | None) -> None:
    """Let workers claim jobs of QUEUE, of a class, of a key, or of a connection again."""
    targets = _chosen(driver, queues, job, key)
    resumed = []
    for each in targets:
        with acting(actor(), "resume", {each.kind: each.name}):
            resumed += [each] if await resume_on(driver, each) else []
    if output.as_json:
        document = {
            "connection": driver.name,
            "resumed": [each.name for each in resumed],
            "not_paused": [each.name for each in targets if each not in resumed],
        }
        output.document(document | _kind(targets))
        return
    for each in targets:
        output.print(f"{line(each.name)} is resumed." if each in resumed else f"{line(each.name)} was not paused.")


def _chosen(driver: Driver, queues: Sequence[str], job: str | None, key: str | None) -> list[PauseTarget]:
    """
    Raises:
        click.UsageError: it is not one kind of thing.
    """
    chosen = [PauseTarget(PauseKind.QUEUE, queue) for queue in dict.fromkeys(queues)]
    chosen += [PauseTarget(PauseKind.JOB, job)] if job is not None else []
    chosen += [PauseTarget(PauseKind.KEY, key)] if key is not None else []
    if not chosen and click.get_current_context().params.get("connection") is not None:
        return [PauseTarget(PauseKind.CONNECTION, driver.name)]
    if len({each.kind for each in chosen}) != 1:
        raise click.UsageError("give QUEUE, --job NAME or --key KEY, or --connection NAME alone for all of it")
    return chosen


async def _unknown(driver: Driver, target: PauseTarget) -> str | None:
    """A message where nothing has this name now. It is paused all the same."""
    if target.kind is PauseKind.QUEUE:
        return await unknown_queue(Stores.of(driver), target.name)
    if target.kind is PauseKind.JOB:
        return await unknown_name(Stores.of(driver), target.name)
    if target.kind is PauseKind.KEY and not await driver.pauses.has_key(target.name):
        return f"outbox: no job has the key {line(target.name)} now"
    return None
