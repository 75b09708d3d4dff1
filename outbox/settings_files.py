"""The files that settings come from. What is wrong with one is an error that names it."""

from __future__ import annotations

import io
import sys
import tomllib
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

from dotenv.parser import parse_stream

from outbox.errors import ConfigurationError

ENV_FILE = ".env"
_PYPROJECT = "pyproject.toml"
_LEVELS_UP = 3


def working_directory() -> Path | None:
    """None where there is none any more: a deploy may have removed it under a process that goes on."""
    try:
        return Path.cwd()
    except OSError:
        return None


def import_from_here() -> None:
    """Find the application's modules in the directory in which a command is run, as `python -m` does."""
    here = working_directory()
    if here is not None and str(here) not in sys.path:
        sys.path.insert(0, str(here))


def check_env_file() -> None:
    """
    Raises:
        ConfigurationError: ``.env`` cannot be read, or has a line that is no setting: its value would not be used, and
            a worker would drain the default database instead of the one that is meant.
    """
    path = Path(ENV_FILE)
    if not _is_file(path):
        return
    for binding in parse_stream(io.StringIO(_read(path))):
        if binding.error:
            text = binding.original.string
            blank = text[: len(text) - len(text.lstrip())].count("\n")
            raise ConfigurationError(
                f"{path.absolute()}, line {binding.original.line + blank}, is not NAME=value: close the quotes, or "
                "begin it with # if it is no setting"
            )


def pyproject_table() -> tuple[str, dict[str, Any]]:
    """The name and ``[tool.outbox]`` of the first pyproject.toml here or in the directories above.

    Raises:
        ConfigurationError: it cannot be read, is not TOML, or has something else under that name.
    """
    here = working_directory()
    directories = () if here is None else (here, *here.parents[:_LEVELS_UP])
    for directory in directories:
        path = directory / _PYPROJECT
        if _is_file(path):
            return str(path), _table(path)
    return _PYPROJECT, {}


def _table(path: Path) -> dict[str, Any]:
    try:
        table: Any = _parsed(_read(path))
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path} is not TOML: {error}") from None
    for name in ("tool", "outbox"):
        table = table.get(name, {})
        if not isinstance(table, dict):
            raise ConfigurationError(f"{path}: {name} is not a table: write settings below [tool.outbox]")
    return deepcopy(table)


@lru_cache(maxsize=4)
def _parsed(text: str) -> dict[str, Any]:
    """An application's tests load settings again and again: most of that time went into a file that stays the same.

    Raises:
        tomllib.TOMLDecodeError: it is not TOML.
    """
    return tomllib.loads(text)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError as error:
        raise ConfigurationError(f"{path.absolute()} cannot be read: {error.strerror}") from None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{path.absolute()} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path.absolute()} is not UTF-8: {error}") from None
