"""Compares a job with what its payload loads as, so that no field changes on its way to a worker.

`==` is not enough: it takes ``1`` for ``True``, an instant for the same instant in another zone, and asks the
application's own ``__eq__``. Values are the same here if their types are the same and their parts are.
"""

from __future__ import annotations

import dataclasses
import marshal
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, TypeGuard, Union, get_args, get_origin
from uuid import UUID

from pydantic import BaseModel

# Equal only where nothing tells them apart.
_SCALARS = frozenset({int, str, bool, bytes, NoneType, UUID, date})
# Smaller containers are compared faster item by item.
_LARGE = 8


class Difference(NamedTuple):
    """The first place at which a value differs from what was loaded for it."""

    path: tuple[str, ...]
    sent: Any
    loaded: Any

    def under(self, part: str) -> Difference:
        return Difference((part, *self.path), self.sent, self.loaded)


class _Absent:
    def __repr__(self) -> str:
        return "nothing"


ABSENT = _Absent()
"""Stands for a value that is on one side only."""


def model_difference(sent: BaseModel, loaded: BaseModel) -> Difference | None:
    """Where two models of one class differ, or None. ``model_fields_set`` and cached properties are not compared."""
    kind = type(sent)
    if type(loaded) is not kind:
        return Difference((), sent, loaded)
    if _is_plain(kind) and sent.__dict__ == loaded.__dict__:
        return None
    values, others = sent.__dict__, loaded.__dict__
    for name in kind.__pydantic_fields__:
        # What `model_construct` left out cannot be lost.
        if name in values and (found := difference(values[name], others.get(name, ABSENT))):
            return found.under(name)
    if found := difference(sent.__pydantic_extra__ or {}, loaded.__pydantic_extra__ or {}):
        return found
    return private_difference(sent, loaded) if kind.__private_attributes__ else None


def difference(sent: Any, loaded: Any) -> Difference | None:
    """Where two values differ, or None if a worker cannot tell them apart."""
    if sent is loaded:
        return None
    kind = type(sent)
    if kind is not type(loaded) and not _stands_for(kind, loaded):
        return Difference((), sent, loaded)
    if kind in _SCALARS:
        return None if sent == loaded else Difference((), sent, loaded)
    compare: Callable[[Any, Any], Difference | None] = _comparison(kind)  # type: ignore[arg-type]
    try:
        return compare(sent, loaded)
    except Exception:  # noqa: BLE001 - whatever an application's own `__eq__`, `__hash__` or property raises
        return Difference((), sent, loaded)


def _stands_for(kind: type, loaded: Any) -> bool:
    """Whether ``loaded`` is of the type that a class of a test replaces, as one for a frozen clock does: such a class
    says itself that instances of its base are its own."""
    return issubclass(kind, type(loaded)) and isinstance(loaded, kind)


def _plain_difference(sent: BaseModel, loaded: BaseModel) -> Difference | None:
    return None if sent.__dict__ == loaded.__dict__ else model_difference(sent, loaded)


@lru_cache(maxsize=1_000)
def _comparison(kind: type) -> Callable[[Any, Any], Difference | None]:
    if issubclass(kind, BaseModel):
        return _plain_difference if _is_plain(kind) else model_difference
    if dataclasses.is_dataclass(kind):
        return _dataclass_difference
    for parent, compare in _COMPARISONS:
        if issubclass(kind, parent):
            return compare
    return _object_difference


def _sequence_difference(sent: Any, loaded: Any) -> Difference | None:
    if len(sent) > _LARGE and _same_builtins(sent, loaded):
        return None
    index = 0
    for one, other in zip(sent, loaded, strict=False):
        if found := difference(one, other):
            return found.under(str(index))
        index += 1  # noqa: SIM113 - enumerate makes a tuple for each
    same_length = len(sent) == len(loaded) and getattr(sent, "maxlen", None) == getattr(loaded, "maxlen", None)
    return _unless(same_length, sent, loaded)


def _mapping_difference(sent: Mapping[Any, Any], loaded: Mapping[Any, Any]) -> Difference | None:
    if len(sent) > _LARGE and _same_builtins(sent, loaded):
        return None
    if len(sent) != len(loaded):
        return Difference((), sent, loaded)
    # A key is found by `==`, which takes 1 for True: what was found is compared as well.
    keys = {key: key for key in loaded}
    for key, value in sent.items():
        if type(key) is not str and (found := difference(key, keys.get(key, ABSENT))):
            return Difference((), *found[1:])
        if found := difference(value, loaded[key] if key in keys else ABSENT):
            return found.under(str(key))
    if isinstance(sent, OrderedDict):
        return _unless(list(sent) == _as_stored(sent), sent, loaded)
    same_factory = getattr(sent, "default_factory", None) == getattr(loaded, "default_factory", None)
    return _unless(same_factory, sent, loaded)


def _as_stored(sent: Mapping[Any, Any]) -> list[Any]:
    """The keys in the order that MySQL's JSON columns give them: by length, then by bytes."""
    return sorted(sent, key=lambda key: (len(str(key).encode()), str(key).encode()))


def _set_difference(sent: Any, loaded: Any) -> Difference | None:
    if len(sent) != len(loaded):
        return Difference((), sent, loaded)
    items = {item: item for item in loaded}
    for item in sent:
        if found := difference(item, items.get(item, ABSENT)):
            return found
    return None


def _dataclass_difference(sent: Any, loaded: Any) -> Difference | None:
    for field in dataclasses.fields(sent):
        one, other = getattr(sent, field.name, ABSENT), getattr(loaded, field.name, ABSENT)
        if found := difference(one, other):
            return found.under(field.name)
    return None


def _float_difference(sent: float, loaded: float) -> Difference | None:
    return _unless(sent.hex() == loaded.hex(), sent, loaded)


def _decimal_difference(sent: Decimal, loaded: Decimal) -> Difference | None:
    return _unless(sent.as_tuple() == loaded.as_tuple(), sent, loaded)


def _time_difference(sent: datetime | time, loaded: datetime | time) -> Difference | None:
    """JSON keeps the offset of a zone and not its name, which is the same time. It keeps no ``fold``."""
    offset = sent.utcoffset()
    if offset is None:
        return _unless(sent == loaded and sent.fold == loaded.fold, sent, loaded)
    # Two zones have no equal times where a clock is put back, so without them. The offset says which time is meant.
    same = sent == loaded or sent.replace(tzinfo=None, fold=0) == loaded.replace(tzinfo=None, fold=0)
    return _unless(same and offset == loaded.utcoffset(), sent, loaded)


def _enum_difference(sent: Enum, loaded: Enum) -> Difference | None:
    # Members are single, but for flags, whose combinations are made when they are needed.
    return _unless(sent.name == loaded.name and sent.value == loaded.value, sent, loaded)


def _iterator_difference(sent: Any, loaded: Any) -> Difference:
    return Difference((), sent, loaded)


def described(found: Difference) -> str:
    """What differs and what to do about it, without the values: those may be secret."""
    field, sent, loaded = ".".join(found.path) or "the job", found.sent, found.loaded
    if found.path and found.path[-1].startswith("_"):
        return f"the private attribute {field!r} is set, and is not stored: make it a field"
    if hasattr(sent, "get_secret_value"):
        return (
            f"the field {field!r} is a secret, which is stored as asterisks: dispatch a key to it, or give the field a "
            "serializer that reveals it (@field_serializer)"
        )
    if isinstance(sent, Iterator):
        return f"the field {field!r} is an iterator, which can be read only once: make it a list"
    if isinstance(sent, OrderedDict) and type(loaded) is type(sent):
        return f"the field {field!r} has an order of keys, which a JSON column does not keep: make it a list of pairs"
    if loaded is ABSENT:
        return f"the field {field!r} would be lost: it is not serialised, or its key is that of another value"
    if sent is ABSENT:
        return f"the field {field!r} would be made up on the way to a worker: it is not in the job"
    if type(sent) is type(loaded) or loaded is None:
        return (
            f"the field {field!r} would reach a worker with another value: what is serialised of this {_kind(sent)} "
            f"does not load as it{_advice(sent)}"
        )
    return (
        f"the field {field!r} would reach a worker changed: what is sent as {_kind(sent)} loads as {_kind(loaded)}; "
        f"declare the field with the type {_kind(sent)}, or give it a value of the type that it has"
    )


def _kind(value: Any) -> str:
    return type(value).__qualname__


def _advice(sent: Any) -> str:
    if isinstance(sent, bytes):
        return " (give model_config ser_json_bytes and val_json_bytes of the same value)"
    if isinstance(sent, float):
        return " (give model_config ser_json_inf_nan='strings' if it may be infinite or NaN)"
    if isinstance(sent, Mapping):
        return " (two of its keys may be written alike)"
    return " (is it excluded, or changed again by its validator or serializer?)"


def _object_difference(sent: Any, loaded: Any) -> Difference | None:
    """By what makes them: pickle's view of an object. Else by its own `==`, as for objects that keep caches."""
    try:
        made, parts = sent.__reduce_ex__(2), loaded.__reduce_ex__(2)
    except Exception:  # noqa: BLE001 - most that cannot be pickled raise TypeError, others what they like
        made, parts = sent, loaded
    if isinstance(made, tuple) and difference(made[1:], parts[1:]) is None and made[0] is parts[0]:
        return None
    equal: Any = type(sent).__eq__
    by_identity = equal is object.__eq__
    return _unless(not by_identity and (sent == loaded) is True, sent, loaded)


_COMPARISONS: tuple[tuple[type | tuple[type, ...], Callable[[Any, Any], Difference | None]], ...] = (
    (Enum, _enum_difference),
    (float, _float_difference),
    (Decimal, _decimal_difference),
    ((datetime, time), _time_difference),
    ((list, tuple, deque), _sequence_difference),
    (Mapping, _mapping_difference),
    ((set, frozenset), _set_difference),
    (Iterator, _iterator_difference),
)


def _unless(same: bool, sent: Any, loaded: Any) -> Difference | None:
    return None if same else Difference((), sent, loaded)


def _same_builtins(sent: Any, loaded: Any) -> bool:
    """Whether two containers of Python's own types are the same, at the speed of C. False if in doubt."""
    try:
        # The first format writes each value by its exact type, and refuses all types that are not Python's own.
        return marshal.dumps(sent, 0) == marshal.dumps(loaded, 0)
    except ValueError:
        return False


def private_difference(sent: BaseModel, loaded: BaseModel) -> Difference | None:
    """Private attributes are not stored. One that code of the class sets when it is loaded has its own value there."""
    values, others = sent.__pydantic_private__ or {}, loaded.__pydantic_private__ or {}
    for name, attribute in type(sent).__private_attributes__.items():
        one, other = values.get(name, ABSENT), others.get(name, ABSENT)
        if attribute.default_factory is not None:
            set_by_code = not isinstance(one, list | dict | set)
        else:
            set_by_code = other is not ABSENT and difference(attribute.get_default(), other) is not None
        if not set_by_code and (found := difference(one, other)):
            return found.under(name)
    return None


@lru_cache(maxsize=1_000)
def _is_plain(kind: type[BaseModel]) -> bool:
    """Whether `==` of the fields says all: they hold scalars or lists and dictionaries of them, and nothing else."""
    decorators = kind.__pydantic_decorators__
    return (
        not kind.__private_attributes__
        and kind.model_config.get("extra") != "allow"
        and not decorators.field_validators
        and not decorators.validators
        and not decorators.model_validators
        and not decorators.root_validators
        and all(
            _holds_scalars(field.annotation) and not any(map(_converts, field.metadata))
            for field in kind.__pydantic_fields__.values()
        )
    )


def _holds_scalars(annotation: Any) -> bool:
    if _is_class(annotation) and (annotation in _SCALARS or annotation is float):
        return True
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return all(type(argument) in _SCALARS for argument in arguments)
    if origin in (Union, UnionType, list, dict):
        return all(map(_holds_scalars, arguments))
    return False


def _is_class(annotation: Any) -> TypeGuard[type]:
    return isinstance(annotation, type)


def _converts(metadata: Any) -> bool:
    """Whether a part of ``Annotated[…]`` can change a value's type."""
    return hasattr(metadata, "func") or hasattr(metadata, "__get_pydantic_core_schema__")
