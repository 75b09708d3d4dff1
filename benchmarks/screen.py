"""What a run shows on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table as RichTable

from benchmarks.results import Run
from benchmarks.tables import tables


def show(console: Console, run: Run) -> None:
    """All tables, and then what could not be measured."""
    for table in tables(run):
        shown = RichTable(title=f"{table.title}  ({table.name})", title_justify="left", title_style="bold")
        for column in table.columns:
            shown.add_column(column, justify="left" if column in ("store", "what") else "right")
        for row in table.rows:
            shown.add_row(*row)
        console.print(shown)
        console.print()
    for failure in run.failures:
        console.print(f"not measured: {failure}", style="red", markup=False)
