"""Progress for whoever watches: bars on a terminal, a line every few seconds elsewhere."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

PLAIN_EVERY = 3.0  # seconds between lines where there is no terminal


@dataclass
class Screen:
    """Shows how far each thing has come."""

    console: Console
    totals: Mapping[str, int]
    _progress: Progress = field(init=False)
    _bars: dict[str, TaskID] = field(init=False)
    _spoke: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        columns = TextColumn("{task.description}"), BarColumn(40), MofNCompleteColumn()
        self._progress = Progress(*columns, console=self.console, disable=not self.console.is_terminal)
        self._bars = {name: self._progress.add_task(name, total=n) for name, n in self.totals.items()}

    @contextmanager
    def shown(self) -> Iterator[None]:
        with self._progress:
            yield

    def update(self, done: Mapping[str, int]) -> None:
        for name, bar in self._bars.items():
            self._progress.update(bar, completed=done.get(name, 0))
        if not self.console.is_terminal and time.monotonic() - self._spoke > PLAIN_EVERY:
            self._spoke = time.monotonic()
            parts = (f"{name} {done.get(name, 0)}/{total}" for name, total in self.totals.items())
            self.console.print("  " + ", ".join(parts), soft_wrap=True)

    def say(self, text: str) -> None:
        """A line of its own, above the bars."""
        self._progress.console.print(text, soft_wrap=True)
