"""What the dashboard hides in payloads and in the text of errors."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from outbox import registry
from outbox.encrypted_jobs import token_of
from outbox.errors import UnknownJob

HIDDEN = "[redacted]"
ENCRYPTED = "[encrypted]"
_SHORTEST = 3
"""A value of fewer characters is not looked for in the text of errors: it would hide parts of other words."""

Hook = Callable[[str, Any], Any]
"""``redact(name, payload)`` returns the payload of a job of this name as it may be shown."""


class Redaction:
    """Hides the fields that a job class lists in ``redact``, at any depth, and what the application's hook takes away.

    The text of errors loses the values of the listed fields as well.
    """

    def __init__(self, hook: Hook | None = None) -> None:
        self._hook = hook

    @property
    def has_hook(self) -> bool:
        return self._hook is not None

    def payload(self, name: str, text: str) -> str:
        """The payload of a job as it may be shown: JSON over several lines, or as it is stored where it is no JSON.
        An encrypted payload stays closed."""
        if token_of(text) is not None:
            return ENCRYPTED
        fields = fields_of(name)
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return HIDDEN if fields or self._hook else text
        value = _without(value, fields)
        if self._hook is not None:
            value = self._hook(name, value)
        return json.dumps(value, indent=2, ensure_ascii=False, default=str)

    def error(self, name: str, payload: str, text: str) -> str:
        """``text`` without the values of the listed fields of ``payload``."""
        fields = fields_of(name)
        if not fields:
            return text
        try:
            value = json.loads(payload)
        except (ValueError, RecursionError):
            return HIDDEN
        for secret in sorted(set(_secrets(value, fields)), key=len, reverse=True):
            text = text.replace(secret, HIDDEN)
        return text


def fields_of(name: str) -> frozenset[str]:
    """What the class of the job ``name`` lists in ``redact``. A class that this process does not know lists nothing."""
    try:
        return frozenset(registry.resolve(name).redact)
    except UnknownJob:
        return frozenset()


def _without(value: Any, fields: frozenset[str]) -> Any:
    if isinstance(value, dict):
        return {key: HIDDEN if key in fields else _without(each, fields) for key, each in value.items()}
    if isinstance(value, list):
        return [_without(each, fields) for each in value]
    return value


def _secrets(value: Any, fields: frozenset[str]) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from _texts(each) if key in fields else _secrets(each, fields)
    elif isinstance(value, list):
        for each in value:
            yield from _secrets(each, fields)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)
    elif value is not None and not isinstance(value, bool) and len(str(value)) >= _SHORTEST:
        yield str(value)
