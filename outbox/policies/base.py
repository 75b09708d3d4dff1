"""The bits of policies, and how a job class declares one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import IntFlag
from typing import Any, NamedTuple

from pydantic import BaseModel
from pydantic_core import PydanticSerializationError, to_jsonable_python

from outbox.errors import InvalidJob


class Policies(IntFlag):
    """Which policies a job has: the column ``policies`` of its row, which is NULL for a job without any."""

    UNIQUE = 1
    KEY = 2
    RATE = 4
    CHAIN = 8
    BATCH = 16
    SCHEDULE = 32


class Declaration(NamedTuple):
    """A policy of a job class under the options of one dispatch."""

    policy: Policies
    header: str
    """The field of `Headers` that keeps what the policy needs to know of a job."""
    value: Callable[[Any, bytes], BaseModel]
    """Makes the header of one job from the job and its payload."""
    delay: float | None = None
    """Seconds for which the job waits where its dispatch says nothing else."""


def chosen(kind: type, options: Any, name: str) -> Any:
    """The value of an option: that of the dispatch, else that of the class."""
    dispatched = getattr(options, name)
    return getattr(kind, name) if dispatched is None else dispatched


def field_value(job: Any, payload: Mapping[str, Any], field: str) -> Any:
    """The value of a field of ``job``, as its payload has it: by the field's name, or by its alias. A payload can have
    it in another shape, or leave it out where it is the default: then it is that of the job, as JSON has it.

    Raises:
        InvalidJob: the job has no such field, or JSON cannot hold its value.
    """
    if field in payload:
        return payload[field]
    known = type(job).model_fields.get(field)
    if known is None:
        raise InvalidJob(f"{job.name}: the job has no field {field!r}, which is to be its key")
    if known.serialization_alias is not None and known.serialization_alias in payload:
        return payload[known.serialization_alias]
    try:
        return to_jsonable_python(getattr(job, field))
    except PydanticSerializationError as error:
        raise InvalidJob(f"{job.name}: the field {field!r} cannot be its key: {error}") from error


def checked_text(job: Any, method: str, value: object) -> str:
    """The text that a method of ``job`` has returned, by which a policy knows it.

    Raises:
        InvalidJob: it is no text, or one that UTF-8 does not have.
    """
    if not isinstance(value, str):
        raise InvalidJob(f"{job.name}: {method} returned {value!r}, which is no text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidJob(f"{job.name}: {method} returned {value!r}, which UTF-8 does not have: {error}") from None
    return value
