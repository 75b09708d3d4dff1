"""A form for the fields of a job class, made from its JSON schema. The class itself validates what is given."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from outbox.job import Job

PREFIX = "field."
_TEXTS = ("text", "choice")
"""Kinds of fields whose values are taken as they are."""
_GENERAL = ""
"""Where an error belongs to no field."""


class FormFields(Collection[str]):
    """The names of the fields of a form: those given, and one for each field of any class."""

    def __init__(self, *names: str) -> None:
        self._names = names

    def __contains__(self, name: object) -> bool:
        return name in self._names or (isinstance(name, str) and name.startswith(PREFIX))

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@dataclass(frozen=True, slots=True)
class Field:
    """``kind`` is ``"text"``, ``"number"``, ``"choice"``, ``"flag"`` or ``"json"``; ``hint`` says what it takes."""

    name: str
    kind: str
    hint: str
    is_required: bool
    choices: tuple[str, ...] = ()
    value: str = ""
    error: str = ""


def fields_of(kind: type[Job], given: Mapping[str, str], errors: Mapping[str, str]) -> list[Field]:
    """``given`` are the values of the form, by the names of fields."""
    schema = kind.model_json_schema(by_alias=False)
    found = []
    for name, part in schema.get("properties", {}).items():
        resolved = _resolved(part, schema.get("$defs", {}))
        what, choices = _kind(resolved)
        found.append(
            Field(
                name,
                what,
                _hint(resolved, part),
                name in schema.get("required", ()),
                choices,
                given.get(name, ""),
                errors.get(name, ""),
            )
        )
    return found


def _resolved(part: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema that a reference names, and that of an optional field without its null."""
    if "$ref" in part:
        found: Mapping[str, Any] = definitions.get(str(part["$ref"]).rpartition("/")[2], {})
        return found
    options = [each for each in part.get("anyOf", ()) if each.get("type") != "null"]
    return _resolved(options[0], definitions) if len(options) == 1 else part


def _kind(part: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    if "enum" in part and all(isinstance(each, str) for each in part["enum"]):
        return "choice", tuple(part["enum"])
    kinds = {"string": "text", "integer": "number", "number": "number"}
    if part.get("type") == "boolean":
        return "flag", ("true", "false")
    return kinds.get(str(part.get("type")), "json"), ()


def _hint(part: Mapping[str, Any], declared: Mapping[str, Any]) -> str:
    kind = str(part.get("format") or part.get("type") or "JSON")
    told = [{"object": "a JSON object", "array": "a JSON list"}.get(kind, kind)]
    if "default" in declared:
        told.append(f"default {json.dumps(declared['default'], default=str)[:60]}")
    if text := declared.get("description"):
        told.append(str(text)[:200])
    return ", ".join(told)


def payload_of(kind: type[Job], given: Mapping[str, str]) -> str:
    """The JSON of a payload. What is left empty is left out. Text is taken as it is, other values as JSON where they
    are that."""
    values: dict[str, Any] = {}
    for field in fields_of(kind, given, {}):
        text = given.get(field.name)
        if text is not None:
            values[field.name] = (
                text if field.kind == "text" or field.choices[:1] not in ((), ("true",)) else _json(text)
            )
    return json.dumps(values)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        # The class says what is wrong with it.
        return text


def errors_of(error: Exception) -> dict[str, str]:
    """What the class says of each field; of the whole job under an empty name."""
    cause = error if isinstance(error, ValidationError) else error.__cause__
    if not isinstance(cause, ValidationError):
        return {_GENERAL: str(error)}
    found: dict[str, str] = {}
    for each in cause.errors(include_url=False, include_input=False, include_context=False):
        place = [str(part) for part in each["loc"]]
        inside = f" (at {'.'.join(place[1:])})" if len(place) > 1 else ""
        found.setdefault(place[0] if place else _GENERAL, f"{each['msg']}{inside}")
    return found
