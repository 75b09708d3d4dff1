"""Versions of payloads: which steps turn an old payload into one that its class validates."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any, NamedTuple, TypeVar

from outbox.errors import ConfigurationError

FIRST = 1
"""The version of payloads whose class had no ``version`` when they were dispatched."""

_VERSIONS = range(FIRST, 65_536)
_MARK = "__outbox_upgrade__"
_F = TypeVar("_F")


class Step(NamedTuple):
    """A function of a job class that turns payloads of one version into those of the next."""

    name: str
    call: Callable[[dict[str, Any]], Any]


def upgrade(version: int) -> Callable[[_F], _F]:
    """Mark a function of a job class: it turns a payload of ``version`` into one of ``version + 1``.

    The function is called with the payload as a dict, before its fields are validated, and returns a dict. Make it a
    ``@staticmethod`` of ``(payload)``, or a ``@classmethod`` of ``(cls, payload)``. The class names the newest version:
    ``version = 3`` needs ``@upgrade(2)`` beside ``@upgrade(1)``.

    Raises:
        ConfigurationError: ``version`` is no whole number from 1 to 65,534.
    """
    if not _is_version(version) or version + 1 not in _VERSIONS:
        raise ConfigurationError(f"@upgrade takes the version that it upgrades from, 1 to 65534, not {version!r}")

    def mark(function: _F) -> _F:
        if isinstance(function, type) or not (callable(function) or isinstance(function, staticmethod | classmethod)):
            raise ConfigurationError(f"@upgrade({version}) marks a function of a job class, not {function!r}")
        inner = getattr(function, "__func__", function)
        if inspect.iscoroutinefunction(inner):
            raise ConfigurationError(f"@upgrade({version}): `{inner.__name__}` is not awaited: make it a plain `def`")
        setattr(inner, _MARK, version)
        return function

    return mark


@lru_cache(maxsize=1_000)
def steps_of(cls: type) -> Mapping[int, Step]:
    """The steps of a job class and its parents, by the version from which they upgrade.

    Raises:
        ConfigurationError: one class has two for a version, or one that cannot be called with a payload.
    """
    steps: dict[int, Step] = {}
    for parent in reversed(cls.__mro__):
        own: dict[int, Step] = {}
        # A copy: looking at a member can make pydantic keep something in the class.
        for name, value in list(vars(parent).items()):
            version = getattr(getattr(value, "__func__", value), _MARK, None)
            if not isinstance(version, int):
                continue
            if version in own:
                raise ConfigurationError(
                    f"{_where(parent)}: `{own[version].name}` and `{name}` are both marked @upgrade({version}): "
                    "keep one of them"
                )
            own[version] = Step(name, _callable(cls, name, value))
        steps.update(own)
    return steps


def check_versions(cls: Any) -> None:
    """
    Raises:
        ConfigurationError: ``version`` is out of its range, or the steps of the class do not lead to it.
    """
    where, newest, steps = _where(cls), cls.version, steps_of(cls)
    if newest is None:
        if steps:
            raise ConfigurationError(f"{where}: @upgrade({min(steps)}) needs a `version` of the class that it leads to")
        return
    if not _is_version(newest):
        raise ConfigurationError(f"{where}: version is a whole number from 1 to 65535, not {newest!r}")
    if not steps:
        return
    if max(steps) >= newest:
        raise ConfigurationError(
            f"{where}: @upgrade({max(steps)}) leads to version {max(steps) + 1}, but version is {newest}: "
            f"set version = {max(steps) + 1}"
        )
    missing = next((each for each in range(min(steps), newest) if each not in steps), None)
    if missing is not None:
        beyond = f", and so not to {newest}" if newest > missing + 1 else ""
        raise ConfigurationError(
            f"{where}: nothing leads from version {missing} to {missing + 1}{beyond}: "
            f"add a function marked @upgrade({missing})"
        )


def has_path(cls: Any, version: int) -> bool:
    """Whether payloads of ``version`` can become those that the class has now."""
    newest = cls.version or FIRST
    return version == newest or (version < newest and version in steps_of(cls))


def _is_version(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value in _VERSIONS


def _where(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _callable(cls: type, name: str, value: Any) -> Callable[[dict[str, Any]], Any]:
    """A plain function is called with the payload, or with the class before it if it has two parameters."""
    function = value.__get__(None, cls) if hasattr(value, "__get__") else value
    for arguments in ((), (cls,)):
        try:
            inspect.signature(function).bind(*arguments, {})
        except TypeError:
            continue
        return partial(function, *arguments)
    raise ConfigurationError(
        f"{_where(cls)}: `{name}` is called with the payload as its only argument: `def {name}(payload)`"
    )
