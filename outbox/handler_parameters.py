"""What ``handle`` of a job class asks a worker for: a session, and resources by their types."""

from __future__ import annotations

import builtins
import inspect
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple, get_type_hints

from outbox.errors import ConfigurationError

_SESSIONS = ("AsyncSession", "Session")
_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class HandlerParameters(NamedTuple):
    """The parameters of a ``handle`` that have no default, by name."""

    sessions: Mapping[str, str]
    """Of one in which the job is completed, with ``AsyncSession`` or ``Session``. At most one is valid."""
    resources: tuple[str, ...]
    others: tuple[str, ...]
    """What no worker can fill."""

    @property
    def session(self) -> str | None:
        """The name of the session."""
        return next(iter(self.sessions), None)


_NONE = HandlerParameters({}, (), ())


@lru_cache(maxsize=1_000)
def parameters_of(cls: type) -> HandlerParameters:
    method = inspect.getattr_static(cls, "handle", None)
    if not inspect.isfunction(method):
        return _NONE
    required = [
        each
        for each in list(inspect.signature(method, follow_wrapped=False).parameters.values())[1:]
        if each.default is each.empty and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
    ]
    alone = len(required) == 1
    sessions = {
        each.name: kind
        for each in required
        if each.kind in (_BY_POSITION if alone else _BY_NAME) and (kind := _session_kind(method, each)) is not None
    }
    left = [each for each in required if each.name not in sessions]
    resources = tuple(each.name for each in left if each.kind in _BY_NAME and _is_of_a_resource(each))
    return HandlerParameters(sessions, resources, tuple(each.name for each in left if each.name not in resources))


def takes_session(cls: type) -> bool:
    """Whether ``handle`` of a job class takes the session in which its job is completed."""
    return bool(parameters_of(cls).sessions)


def resource_types(cls: type) -> dict[str, Any]:
    """The types of the resources that ``handle`` takes, by the names of its parameters.

    Raises:
        ConfigurationError: an annotation names something that its module does not have when it runs.
    """
    names = parameters_of(cls).resources
    if not names:
        return {}
    method = inspect.getattr_static(cls, "handle")
    try:
        hints = get_type_hints(method)
    except Exception as error:
        raise ConfigurationError(
            f"{cls.__module__}.{cls.__qualname__}: an annotation of `handle` cannot be resolved: {error}: import what "
            "it names at the level of the module, and not under TYPE_CHECKING only"
        ) from error
    return {name: hints[name] for name in names}


def _is_of_a_resource(parameter: inspect.Parameter) -> bool:
    """Whether a parameter takes a resource. A plain value, such as ``int`` or ``list[str]``, is a field of the job."""
    annotation = parameter.annotation
    if annotation is parameter.empty or annotation is None or annotation is Any:
        return False
    if isinstance(annotation, str):
        name = annotation.partition("[")[0]
        return name not in ("Any", "None") and not hasattr(builtins, name) and "|" not in annotation
    origin = getattr(annotation, "__origin__", annotation)
    return isinstance(origin, type) and origin.__module__ != "builtins"


def _session_kind(method: Any, parameter: inspect.Parameter) -> str | None:
    annotation = parameter.annotation
    if isinstance(annotation, str):
        try:
            annotation = get_type_hints(method)[parameter.name]
        except Exception:  # noqa: BLE001 - it may be imported for type checkers only: then the name has to do
            name = annotation.rpartition(".")[2]
            return name if name in _SESSIONS else None
    bases = getattr(annotation, "__mro__", ())
    names = (base.__name__ for base in bases if base.__module__.startswith("sqlalchemy."))
    return next((name for name in names if name in _SESSIONS), None)
