"""The Lua scripts: read from the package, known to the server by their hash."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

_FOLDER = files(__package__) / "scripts"


@dataclass(frozen=True, slots=True)
class Call:
    """One command, on its way to the server. ``script`` is what EVALSHA names by its hash, if it is that."""

    words: tuple[Any, ...]
    script: Script | None = None

    def in_full(self) -> tuple[Any, ...]:
        """The same with the text of the script, for a server that does not know it; afterwards it does."""
        if self.script is None:
            return self.words
        return ("EVAL", self.script.text, *self.words[2:])


class Script:
    """One file of `scripts/`, with what all of them share behind its first line."""

    def __init__(self, name: str) -> None:
        first_line, _, rest = (_FOLDER / f"{name}.lua").read_text(encoding="utf-8").partition("\n")
        library = (_FOLDER / "library.lua").read_text(encoding="utf-8")
        self.text = f"{first_line}\n{library}\n{rest}".encode()
        self._hash = hashlib.sha1(self.text, usedforsecurity=False).hexdigest()

    def __call__(self, keys: Sequence[bytes | str], *arguments: bytes | str | float) -> Call:
        return Call(("EVALSHA", self._hash, len(keys), *keys, *arguments), self)


def command(*words: Any) -> Call:
    return Call(words)
