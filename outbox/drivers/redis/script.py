"""The Lua scripts: read from the package, known to the server by their hash."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from redis.exceptions import InvalidResponse

_SIGNS = b"01begln"
"""The characters with which scripts answer for a job."""

_FOLDER = files(__package__) / "scripts"


@dataclass(frozen=True, slots=True)
class Call:
    """One command, on its way to the server. ``script`` is what EVALSHA names by its hash, if it is that."""

    words: tuple[Any, ...]
    script: Script | None = None
    returns: type | tuple[type, ...] = object

    def in_full(self) -> tuple[Any, ...]:
        """The same with the text of the script, for a server that does not know it; afterwards it does."""
        if self.script is None:
            return self.words
        return ("EVAL", self.script.text, *self.words[2:])

    def checked(self, answer: Any) -> Any:
        """
        Raises:
            redis.exceptions.InvalidResponse: it is not of the kind that this is answered with.
        """
        if not isinstance(answer, self.returns):
            raise InvalidResponse(f"{answer!r:.100} is no answer to {self.words[0]}")
        return answer


class Script:
    """One file of `scripts/`, with what all of them share behind its first line, and after it the files of ``uses``.

    It answers with an instance of ``returns``. What answers otherwise is not the server that ran it.
    """

    def __init__(self, name: str, *uses: str, returns: type | tuple[type, ...]) -> None:
        first_line, _, rest = _read(name).partition("\n")
        shared = "\n".join(map(_read, ("common/base", *uses)))
        self.returns = returns
        self.text = f"{first_line}\n{shared}\n{rest}".encode()
        self._hash = hashlib.sha1(self.text, usedforsecurity=False).hexdigest()

    def __call__(self, keys: Sequence[bytes | str], *arguments: bytes | str | float) -> Call:
        return Call(("EVALSHA", self._hash, len(keys), *keys, *arguments), self, self.returns)


def _read(name: str) -> str:
    return (_FOLDER / f"{name}.lua").read_text(encoding="utf-8")


def signs(answer: bytes, count: int) -> str:
    """What a script says of ``count`` jobs, a character for each.

    Raises:
        redis.exceptions.InvalidResponse: it says something else.
    """
    if len(answer) != count or answer.strip(_SIGNS):
        raise InvalidResponse(f"{answer!r:.100} is no answer about {count} jobs")
    return answer.decode("ascii")


def command(*words: Any) -> Call:
    return Call(words)
