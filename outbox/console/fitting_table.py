"""Tables that fit the terminal by omitting whole columns, the least important first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from outbox.console.formatting import line

_GAP = 2
_LEAST = 10
"""Characters that remain of a shortened text before columns are omitted."""


@dataclass(frozen=True, slots=True)
class Column:
    """The highest ``rank`` is omitted first, 0 never. ``whole`` columns are not shortened."""

    title: str
    rank: int
    whole: bool = True
    number: bool = False


@dataclass(slots=True)
class FittingTable:
    columns: Sequence[Column]
    rows: list[tuple[Sequence[str], str | None]] = field(default_factory=list)

    def add(self, *cells: str, style: str | None = None) -> None:
        self.rows.append(([line(cell) for cell in cells], style))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        shown = self._shown(options.max_width)
        # No borders, so that it reads the same in a terminal, a mail and a log.
        table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
        for position in shown:
            column = self.columns[position]
            justify = "right" if column.number else "left"
            table.add_column(column.title, justify=justify, no_wrap=True, min_width=self._least(position))  # type: ignore[arg-type]
        for cells, style in self.rows:
            table.add_row(*(Text(cells[each], no_wrap=True, overflow="ellipsis") for each in shown), style=style)
        yield table

    def _shown(self, width: int) -> list[int]:
        """Positions of the columns that fit. Empty columns are omitted before all others."""
        shown = list(range(len(self.columns)))
        while sum(self._least(each) + _GAP for each in shown) - _GAP > width:
            droppable = [each for each in shown if self.columns[each].rank]
            if not droppable:
                break
            shown.remove(max(droppable, key=lambda each: (self._is_empty(each), self.columns[each].rank)))
        return shown

    def _is_empty(self, position: int) -> bool:
        return not any(cells[position] for cells, _ in self.rows)

    def _least(self, position: int) -> int:
        column = self.columns[position]
        widest = max((cell_len(cells[position]) for cells, _ in self.rows), default=0)
        return max(len(column.title), widest if column.whole else min(widest, _LEAST))
