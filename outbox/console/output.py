"""The output of a command: one JSON document, or tables and text."""

from __future__ import annotations

import json
import os
from typing import Any

import click
from rich.console import Console, RenderableType
from rich.text import Text

# Without a terminal Rich assumes 80. A pager and a mail from cron show more. With COLUMNS=0 it would show nothing.
_WIDTH_OF_A_FILE = 140


class Output:
    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.console = Console(markup=False, highlight=False, emoji=False)
        if self.console.width == 0 or (not self.console.is_terminal and "COLUMNS" not in os.environ):
            self.console.width = _WIDTH_OF_A_FILE

    def result(self, document: dict[str, Any], text: str) -> None:
        """Write one of both."""
        if self.as_json:
            self.document(document)
        else:
            self.print(text)

    def document(self, value: dict[str, Any]) -> None:
        click.echo(json.dumps(value, indent=2))

    def print(self, *renderables: RenderableType) -> None:
        for renderable in renderables:
            self.console.print(renderable, soft_wrap=isinstance(renderable, str | Text))

    def note(self, line: str) -> None:
        """Write a line to stderr, so that stdout has the result only."""
        click.echo(line, err=True)
