"""A payload is a job's fields as JSON. What is written here is what a worker reads, or it is refused."""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import Any

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError, from_json, to_json

from outbox.errors import InvalidJob, InvalidPayload, NewerPayload
from outbox.job import Job
from outbox.payload_versions import FIRST, has_path, steps_of
from outbox.round_trip import ABSENT, Difference, described, model_difference, private_difference

# What a JSON column holds exactly everywhere: integers of 64 bits and keys of 65,535 bytes (MySQL), and 31 levels of
# nesting (MariaDB).
_INTEGERS = range(-(2**63), 2**64)
_LONGEST_KEY = 65_535
_MAX_DEPTH = 31
_LONG_INTEGER = re.compile(rb"\d{19}")

# The parts of pydantic's schemas that have fields.
_WITH_FIELDS = ("model-fields", "dataclass-args", "typed-dict")


def dump(job: Job) -> bytes:
    """The fields of ``job`` by their names, whatever aliases they have: not every alias is one for reading as well.
    Only where a validator of the application's own asks for aliases, the keys are those.

    What was serialised is validated, not the object, and compared with the job: a worker loads what was dispatched.

    Raises:
        InvalidJob: a field does not validate, cannot be serialised, loads as something else, or would not survive a
            JSON column.
    """
    try:
        return _dumped(job, by_alias=False)
    except Exception:
        try:
            return _dumped(job, by_alias=True)
        except Exception:  # noqa: BLE001, S110 - the first error is the one that says what is wrong
            pass
        raise


def _dumped(job: Job, *, by_alias: bool) -> bytes:
    kind = type(job)
    try:
        payload = kind.__pydantic_serializer__.to_json(job, by_alias=by_alias, warnings=False, round_trip=True)
    except PydanticSerializationError as error:
        raise InvalidJob(f"{job.name}: {_unserialisable_field(job)}: {error}") from error
    except RecursionError:
        raise InvalidJob(f"{job.name}: a field refers to itself, or is nested too deeply for JSON") from None
    try:
        loaded = kind.__pydantic_validator__.validate_json(payload, by_alias=_reads_aliases(kind), by_name=True)
    except ValidationError as error:
        raise InvalidJob(f"{job.name}: {_hidden_field(job, error) or _first_problem(error)}") from error
    if _may_not_survive(payload):
        _check_survives(job.name, payload)
    if (found := model_difference(job, loaded)) and not _is_converted(job, loaded):
        raise InvalidJob(f"{job.name}: {described(found)}")
    return payload


def _is_converted(job: Job, loaded: Job) -> bool:
    """Whether ``loaded`` is what pydantic itself makes of the job's values: such as have been set after construction,
    where nothing validates them. A validator that changes a value each time is not such a conversion.
    """
    kind = type(job)
    try:
        once = _validated(kind, job)
        again = _validated(kind, once)
    except Exception:  # noqa: BLE001 - whatever a validator of the application's raises
        return False
    return not (model_difference(once, loaded) or model_difference(again, loaded) or private_difference(job, loaded))


def _validated(kind: type[Job], job: Job) -> Job:
    fields = {name: job.__dict__[name] for name in kind.__pydantic_fields__ if name in job.__dict__}
    # An extra value that is called as a field would go before it.
    return kind.__pydantic_validator__.validate_python(  # type: ignore[no-any-return]
        (job.__pydantic_extra__ or {}) | fields, by_alias=_reads_aliases(kind), by_name=True
    )


def load(kind: type[Job], name: str, payload: str) -> Job:
    """The job of this class that was stored as ``payload``, under ``name``.

    Raises:
        InvalidPayload: the payload is not JSON, or does not validate.
    """
    try:
        return kind.__pydantic_validator__.validate_json(  # type: ignore[no-any-return]
            payload, by_alias=_reads_aliases(kind), by_name=True
        )
    except ValidationError as error:
        raise InvalidPayload(f"{name}: {_first_problem(error)}") from error


def load_version(kind: type[Job], name: str, payload: str, version: int | None) -> Job:
    """`load` for a payload that was dispatched when its class had this ``version``; None stands for the first.

    Raises:
        InvalidPayload: as `load`, or the payload cannot be upgraded to the version that the class has now.
        NewerPayload: the class has had no such version yet.
    """
    stored, newest = version or FIRST, kind.version or FIRST
    if stored == newest:
        return load(kind, name, payload)
    if stored > newest:
        raise NewerPayload(
            f"{name}: the payload has version {stored}, and this worker's code knows versions up to {newest}: "
            "deploy the newer code to the workers, then `outbox retry` the job"
        )
    if not has_path(kind, stored):
        raise InvalidPayload(
            f"{name}: the payload has version {stored}, and nothing leads from there to version {newest}: add a "
            f"function marked @upgrade({stored}) to the class, then `outbox retry` the job"
        )
    return load(kind, name, _upgraded(kind, name, payload, range(stored, newest)))


def _upgraded(kind: type[Job], name: str, payload: str, versions: range) -> str:
    try:
        values = from_json(payload)
    except ValueError as error:
        raise InvalidPayload(f"{name}: the payload is not JSON: {error}") from error
    for version in versions:
        step = steps_of(kind)[version]
        try:
            values = step.call(values)
            text = to_json(values).decode()
        except Exception as error:
            raise InvalidPayload(
                f"{name}: `{step.name}` cannot upgrade the payload from version {version}: "
                f"{type(error).__name__}: {error}"
            ) from error
        if not isinstance(values, dict):
            raise InvalidPayload(
                f"{name}: `{step.name}` cannot upgrade the payload from version {version}: it returns a "
                f"{type(values).__name__}, and not a dict"
            )
    return text


@lru_cache(maxsize=1_000)
def _reads_aliases(kind: type[Job]) -> bool:
    """Whether keys are tried as aliases as well as as names: a serialiser of the application's own may write those.

    Not where an alias is also what another field is called: pydantic tries aliases first, and would give the one field
    the value of the other.
    """
    pending: list[Any] = [kind.__pydantic_core_schema__]
    while pending:
        part = pending.pop()
        if isinstance(part, dict):
            if part.get("type") in _WITH_FIELDS and _is_ambiguous(part):
                return False
            # Values of the application's are no schemas.
            pending.extend(value for key, value in part.items() if key not in ("default", "expected", "metadata"))
        elif isinstance(part, list | tuple):
            pending.extend(part)
    return True


def _is_ambiguous(schema: dict[str, Any]) -> bool:
    fields = schema["fields"]
    named = fields.items() if isinstance(fields, dict) else [(field["name"], field) for field in fields]
    written = {name for name, _ in named} | {field["property_name"] for field in schema.get("computed_fields", ())}
    return any(
        path[0] in written and path != [name] for name, field in named for path in _paths(field.get("validation_alias"))
    )


def _paths(alias: str | list[Any] | None) -> list[list[Any]]:
    if not alias:
        return []
    if isinstance(alias, str):
        return [[alias]]
    return alias if isinstance(alias[0], list) else [alias]


def _unserialisable_field(job: Job) -> str:
    for field in type(job).model_fields:
        try:
            to_json(getattr(job, field, None))
        except (PydanticSerializationError, ValueError, RecursionError):
            return f"the field {field!r} cannot be serialised"
    return "it cannot be serialised"


def _hidden_field(job: Job, error: ValidationError) -> str | None:
    """What there is to say of a field that does not load because its value was not written."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    path = first["loc"]
    value = job.__dict__.get(str(path[0])) if path else None
    if hasattr(value, "get_secret_value"):
        return described(Difference((str(path[0]),), value, ABSENT))
    if first["type"] == "missing" and len(path) == 1 and path[0] in job.__dict__:
        return f"the field {path[0]!r} is excluded, and has no default: do not exclude it"
    return None


def _first_problem(error: ValidationError) -> str:
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    first = problems[0]
    field = ".".join(str(part) for part in first["loc"])
    what = f"the field {field!r}" if field else "the job"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{what} does not validate: {first['msg']}{more}"


def _may_not_survive(payload: bytes) -> bool:
    """A cheap look, which nearly every payload passes."""
    # What is nested so deeply has as many brackets that open, and that close.
    if len(payload) > 2 * _MAX_DEPTH and (
        payload.count(b"[") + payload.count(b"{") > _MAX_DEPTH or len(payload) > _LONGEST_KEY
    ):
        return True
    return b"NaN" in payload or b"Infinity" in payload or _LONG_INTEGER.search(payload) is not None


def _check_survives(name: str, payload: bytes) -> None:
    """Refuse what a JSON column would change or reject."""
    pending: list[tuple[str, Any, int]] = [("", from_json(payload), 1)]
    while pending:
        path, value, depth = pending.pop()
        if isinstance(value, float) and not math.isfinite(value):
            raise InvalidJob(
                f"{name}: the field {path!r} holds {value}, which JSON does not have: give model_config "
                "ser_json_inf_nan='strings'"
            )
        if depth > _MAX_DEPTH:
            raise InvalidJob(f"{name}: the field {path.split('.')[0]!r} is nested over {_MAX_DEPTH} levels deep")
        if isinstance(value, int) and value not in _INTEGERS:
            raise InvalidJob(
                f"{name}: the field {path!r} holds an integer of more than 64 bits, which a JSON column does not keep "
                "exactly: make it a string"
            )
        if isinstance(value, dict) and any(len(key.encode()) > _LONGEST_KEY for key in value):
            raise InvalidJob(
                f"{name}: the field {path or 'the job'!r} has a key of more than {_LONGEST_KEY:,} bytes, which a JSON "
                "column does not take: make it a value"
            )
        children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        pending.extend((f"{path}.{key}".lstrip("."), child, depth + 1) for key, child in children)
