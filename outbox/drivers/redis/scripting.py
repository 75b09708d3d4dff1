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
    """One file of `scripts/`, with what all of them share behind its first line, and after it the files of ``uses``."""

    def __init__(self, name: str, *uses: str) -> None:
        first_line, _, rest = _read(name).partition("\n")
        shared = "\n".join(map(_read, ("library", *uses)))
        self.text = f"{first_line}\n{shared}\n{rest}".encode()
        self._hash = hashlib.sha1(self.text, usedforsecurity=False).hexdigest()

    def __call__(self, keys: Sequence[bytes | str], *arguments: bytes | str | float) -> Call:
        return Call(("EVALSHA", self._hash, len(keys), *keys, *arguments), self)


def _read(name: str) -> str:
    return (_FOLDER / f"{name}.lua").read_text(encoding="utf-8")


def command(*words: Any) -> Call:
    return Call(words)
