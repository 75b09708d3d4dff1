"""``python -m benchmarks.drawing RESULTS.json [DIRECTORY]``: the curves of a run as pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from benchmarks.results import Measurement, Run

PLOTS = Path(__file__).with_name("plots")

_LABELS = {"ms": "milliseconds", "rows": "rows read", "pages": "pages looked at"}
_COLOURS = {"mysql": "#00618a", "mariadb": "#c0765a"}


@dataclass(frozen=True, slots=True)
class Picture:
    """The curves of one scenario on all stores: a panel for each figure."""

    scenario: str
    title: str
    axis: str
    curves: Sequence[Measurement]

    @property
    def file(self) -> str:
        return f"{self.scenario}.svg"


def pictures(run: Run) -> Iterator[Picture]:
    """Of every scenario that has curves."""
    for name in dict.fromkeys(each.scenario for each in run.measurements):
        curves = [each for each in run.of(name) if len(each.series) > 1]
        if curves:
            yield Picture(name, curves[0].title, curves[0].axis or "", curves)


def draw(run: Run, directory: Path) -> list[Path]:
    """Write the pictures and say where.

    :raises ModuleNotFoundError: matplotlib is not installed.
    """
    import matplotlib as mpl  # only here: everything else works without it

    mpl.use("svg")
    # Names of glyphs and no date: the same figures give the same file.
    mpl.rcParams["svg.hashsalt"] = "outbox"
    directory.mkdir(parents=True, exist_ok=True)
    drawn = []
    for picture in pictures(run):
        path = directory / picture.file
        _draw(picture, path)
        drawn.append(path)
    return drawn


def _draw(picture: Picture, path: Path) -> None:
    from matplotlib import pyplot as plt

    figures = list(picture.curves[0].series[0].figures)
    canvas, panels = plt.subplots(1, len(figures), figsize=(4 * len(figures), 3), layout="constrained")
    for panel, figure in zip(panels, figures, strict=True):
        for curve in picture.curves:
            levels = [point.level for point in curve.series]
            values = [point.figures[figure] for point in curve.series]
            panel.plot(levels, values, marker="o", markersize=3, label=curve.store, color=_COLOURS.get(curve.store))
        _label(panel, picture, figure)
    panels[0].legend(frameon=False)
    canvas.suptitle(f"{picture.title}: one claim of 100 jobs", fontsize=10)
    canvas.savefig(path, metadata={"Date": None})
    plt.close(canvas)


def _label(panel: Any, picture: Picture, figure: str) -> None:
    largest = max(point.level for curve in picture.curves for point in curve.series)
    smallest = min(point.level for curve in picture.curves for point in curve.series)
    if smallest > 0 and largest >= 100 * smallest:
        panel.set_xscale("log")
    panel.set_ylim(bottom=0)
    panel.set_xlabel(picture.axis, fontsize=8)
    panel.set_ylabel(_LABELS.get(figure, figure), fontsize=8)
    panel.tick_params(labelsize=7)
    panel.spines[["top", "right"]].set_visible(False)


@click.command()
@click.argument("results", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path), default=PLOTS)
def main(results: Path, directory: Path) -> None:
    """The curves of a run as pictures."""
    for path in draw(Run.load(results), directory):
        click.echo(path)


if __name__ == "__main__":
    main()
