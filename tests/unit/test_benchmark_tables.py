"""How figures of the benchmarks become tables, and results are read again."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

from rich.console import Console

from benchmarks import screen
from benchmarks.results import Measurement, Run
from benchmarks.tables import tables

PAGES = ("overview", "groups of failures, by time")
FIGURES = {"p50 ms": [5.0], "p95 ms": [41.2], "rows read": [13_004.0]}


def measurement(store: str, figures: dict[str, list[float]]) -> Measurement:
    parts = {f"{page}, {name}": values for page in PAGES for name, values in figures.items()}
    return Measurement("dashboard", "Pages", store, "many jobs", None, None, None, parts, [], by_part=True)


def run() -> Run:
    without_rows = {name: values for name, values in FIGURES.items() if name != "rows read"}
    found = [measurement("mysql", FIGURES), measurement("sqlite", without_rows)]
    return Run("2026-01-01T00:00:00+00:00", 1.0, True, 1, {}, found, [])


def test_each_part_has_a_row() -> None:
    [table] = tables(run())
    assert table.columns == ("store", "what", "p50 ms", "p95 ms", "rows read")
    assert table.rows == (
        ("mysql", "overview", "5.00", "41.2", "13,004"),
        ("mysql", "groups of failures, by time", "5.00", "41.2", "13,004"),
        ("sqlite", "overview", "5.00", "41.2", ""),
        ("sqlite", "groups of failures, by time", "5.00", "41.2", ""),
    )


def test_a_table_of_parts_fits_a_screen() -> None:
    console = Console(width=80, record=True, file=StringIO())
    screen.show(console, run())
    shown = console.export_text()
    assert "groups of failures, by time" in shown, "no cell is broken into lines"


def test_results_are_read_again(tmp_path: Path) -> None:
    run().save(tmp_path / "results.json")
    assert Run.load(tmp_path / "results.json") == run()
