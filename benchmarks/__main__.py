"""``python -m benchmarks``: measure, show, and write down."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.console import Console

from benchmarks import drawing, facts, screen
from benchmarks.catalogue import SCENARIOS
from benchmarks.environment import forget_settings
from benchmarks.results import Measurement, Run
from benchmarks.runner import Runner
from benchmarks.scenario import Scenario
from benchmarks.sizes import FULL, QUICK
from benchmarks.stores import KINDS, Store, opened
from tests.servers import ServerFailedError, ServerMissingError

RESULTS = Path(__file__).with_name("results")

_FILE_WIDTH = 200
"""Columns of tables that go into a file."""

try:
    import uvloop
except ImportError:
    new_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
else:
    new_loop = uvloop.new_event_loop


@dataclass(slots=True)
class Findings:
    """What a run has gathered so far."""

    measurements: list[Measurement] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    facts: dict[str, dict[str, str]] = field(default_factory=dict)


def _names(choices: Sequence[str]) -> Callable[[click.Context, click.Parameter, str | None], list[str]]:
    """An option that takes several of the choices, separated by commas; all of them where it is not given."""

    def parse(_: click.Context, __: click.Parameter, value: str | None) -> list[str]:
        names = [name.strip() for name in value.split(",")] if value else list(choices)
        unknown = [name for name in names if not any(choice.startswith(name) for choice in choices)]
        if unknown:
            raise click.BadParameter(f"{', '.join(unknown)}; there are: {', '.join(choices)}")
        return [choice for choice in choices if choice in names or any(_is_prefix(n, choice, choices) for n in names)]

    return parse


def _is_prefix(name: str, choice: str, choices: Sequence[str]) -> bool:
    return name not in choices and choice.startswith(name)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--backend", callback=_names(KINDS), metavar="NAME[,NAME]", help=f"Of {', '.join(KINDS)}.")
@click.option(
    "--only",
    callback=_names([scenario.name for scenario in SCENARIOS]),
    metavar="SCENARIO[,SCENARIO]",
    help=f"Of {', '.join(scenario.name for scenario in SCENARIOS)}; `flat` means all that begin so.",
)
@click.option("--quick", is_flag=True, help="Small sizes and one cycle: whether everything works.")
@click.option("--repeat", type=click.IntRange(1), help="Cycles. Default: 3, with --quick 1.")
@click.option(
    "--directory",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="On the disk that is to be measured. Default: where temporary files are.",
)
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Where results are written.")
@click.option("--plots", type=click.Path(file_okay=False, path_type=Path), help="Where pictures are drawn, if at all.")
def main(
    backend: list[str],
    only: list[str],
    quick: bool,
    repeat: int | None,
    directory: Path | None,
    json_file: Path | None,
    plots: Path | None,
) -> None:
    """Measure outbox on the servers that are there, print tables, and write a JSON file."""
    forget_settings()
    console = terminal()
    chosen = [scenario for scenario in SCENARIOS if scenario.name in only]
    cycles = repeat or (1 if quick else 3)
    started, begun = datetime.now(UTC), time.monotonic()
    findings = Findings()
    with tempfile.TemporaryDirectory(prefix="outbox-bench-", dir=directory) as place:
        findings.facts |= {"machine": dict(facts.machine(Path(place))), "versions": dict(facts.versions())}
        runner = Runner(
            QUICK if quick else FULL, cycles, Path(place), lambda line: console.print(line, style="dim", markup=False)
        )
        for kind in backend:
            scenarios = [scenario for scenario in chosen if kind in scenario.stores]
            if scenarios:
                _measure(kind, scenarios, runner, findings)
    run = Run(
        started.isoformat(timespec="seconds"),
        (time.monotonic() - begun) / 60,
        quick,
        cycles,
        findings.facts,
        findings.measurements,
        findings.failures,
    )
    screen.show(console, run)
    path = json_file or RESULTS / f"{started:%Y-%m-%d-%H%M%S}.json"
    run.save(path)
    console.print(f"written: {path}", markup=False)
    if plots is not None:
        for picture in drawing.draw(run, plots):
            console.print(f"drawn: {picture}", markup=False)
    raise SystemExit(1 if run.failures else 0)


def _measure(kind: str, scenarios: Sequence[Scenario], runner: Runner, findings: Findings) -> None:
    """Everything on one kind of store. What cannot be measured must not cost the results of all that can."""
    try:
        with opened(kind, runner.directory / kind) as store, asyncio.Runner(loop_factory=new_loop) as loop:
            loop.run(_measure_all(store, scenarios, runner, findings))
    except (ServerMissingError, ServerFailedError) as error:
        findings.failures.append(f"{kind}: {error}")


async def _measure_all(store: Store, scenarios: Sequence[Scenario], runner: Runner, findings: Findings) -> None:
    findings.facts[store.kind] = dict(await facts.settings(store))
    for scenario in scenarios:
        if reason := scenario.missing():
            runner.tell(f"skipped: {scenario.name}: {reason}")
            continue
        try:
            findings.measurements += await runner.run(scenario, store)
        except Exception as error:  # noqa: BLE001 - as above
            failure = f"{store.kind}, {scenario.name}: {type(error).__name__}: {error}"
            findings.failures.append(failure)
            runner.tell(f"not measured: {failure}")


def terminal() -> Console:
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_FILE_WIDTH)


if __name__ == "__main__":
    main()
