"""``python -m benchmarks.report RESULTS.json […]``: the tables of one run or several as Markdown.

With ``--into DOCUMENT`` they replace what lies between two marks in that document, so that no figure in it was ever
typed. ``--marks`` names the pair, where there are several.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from benchmarks.drawing import pictures
from benchmarks.results import Run
from benchmarks.tables import Table, tables

FIGURES = "figures"


def markdown(run: Run, plots: Path, document: Path) -> str:
    """All tables, and those pictures that are there, linked as the document reaches them."""
    parts = [_conditions(run)]
    drawn = {picture.scenario: plots / picture.file for picture in pictures(run)}
    for table in tables(run):
        parts += [f"### {table.title}", _table(table)]
        picture = drawn.get(table.name)
        if picture is not None and picture.exists():
            link = os.path.relpath(picture, document.parent).replace(os.sep, "/")
            parts.append(f"![{table.title}]({link})")
    if run.failures:
        parts += ["### What could not be measured", "\n".join(f"- {failure}" for failure in run.failures)]
    return "\n\n".join(parts)


def _conditions(run: Run) -> str:
    cycles = f"{run.repeat} cycle{'s' if run.repeat > 1 else ''}"
    sizes = "small sizes, to see that it works: not figures to go by" if run.quick else "full sizes"
    rows = [f"Run of {run.started_at}, {run.minutes:.0f} minutes, {cycles}, {sizes}.", "", "| | |", "|---|---|"]
    for section, facts in run.facts.items():
        rows.append(f"| {_cell(section)} | {_cell('; '.join(f'{name} {value}' for name, value in facts.items()))} |")
    return "\n".join(rows)


def _table(table: Table) -> str:
    return "\n".join(_rows(table))


def _rows(table: Table) -> Iterator[str]:
    yield f"| {' | '.join(map(_cell, table.columns))} |"
    yield f"|---|---|{'---:|' * (len(table.columns) - 2)}"
    for row in table.rows:
        yield f"| {' | '.join(map(_cell, row))} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def put_into(document: Path, text: str, marks: str = FIGURES) -> None:
    """:raises SystemExit: the document lacks the two marks."""
    old = document.read_text(encoding="utf-8")
    opening, closing = f"<!-- {marks}: begin -->", f"<!-- {marks}: end -->"
    before, begin, rest = old.partition(opening)
    _, end, after = rest.partition(closing)
    if not begin or not end:
        raise SystemExit(f"{document} needs the lines {opening} and {closing}, between which the figures belong")
    document.write_text(f"{before}{opening}\n\n{text}\n\n{closing}{after}", encoding="utf-8")


@click.command()
@click.argument("results", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--into", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A document with the marks.")
@click.option(
    "--plots",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(__file__).with_name("plots"),
    help="Where the pictures are.",
)
@click.option("--marks", default=FIGURES, show_default=True, help="The name of the two marks in the document.")
def main(results: Sequence[Path], into: Path | None, plots: Path, marks: str) -> None:
    """The tables of one run or several as Markdown."""
    document = (into or Path("README.md")).absolute()
    text = "\n\n".join(markdown(Run.load(path), plots.absolute(), document) for path in results)
    if into is None:
        click.echo(text)
    else:
        put_into(into, text, marks)


if __name__ == "__main__":
    main()
