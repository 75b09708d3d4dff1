"""Where a command writes: one JSON document for machines, or tables for people; never both."""

from __future__ import annotations

import json
import os
from typing import Any

import click
from rich.console import Console, RenderableType
from rich.text import Text

# Rich assumes 80 where there is no terminal: in a pager or a mail from cron more is readable.
_WIDTH_OF_A_FILE = 140


class Screen:
    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.console = Console(markup=False, highlight=False, emoji=False)
        if not self.console.is_terminal and "COLUMNS" not in os.environ:
            self.console.width = _WIDTH_OF_A_FILE

    def document(self, value: dict[str, Any]) -> None:
        click.echo(json.dumps(value, indent=2))

    def print(self, *renderables: RenderableType) -> None:
        for renderable in renderables:
            self.console.print(renderable, soft_wrap=isinstance(renderable, str | Text))

    def note(self, line: str) -> None:
        """Beside the result: to stderr, so that a JSON document on stdout stays one."""
        click.echo(line, err=True)
