"""Checks a job class when it is defined: its methods, and attributes that other queues call otherwise."""

from __future__ import annotations

import difflib
import inspect
import sys
from collections.abc import Iterable, Mapping
from functools import cached_property, lru_cache
from typing import Any

from pydantic.errors import PydanticUserError

from outbox.errors import ConfigurationError
from outbox.handler_parameters import parameters_of
from outbox.options import CLASS_OPTIONS

if sys.version_info >= (3, 14):
    import annotationlib

CLASS_ATTRIBUTES = ("name", "aliases", "middleware", "redact", "version", *CLASS_OPTIONS)

# What Celery, Dramatiq, Laravel, RQ, Huey, arq and others call the options of a job, and what is written for them.
_ELSEWHERE = {
    "max_tries": (
        "attempts job_tries max_attempt max_attempts max_retries max_retry max_try n_retries num_retries "
        "number_of_retries retries retry retry_attempts retry_count retry_limit retry_max total_tries tries"
    ),
    "timeout": (
        "execution_timeout hard_time_limit hard_timeout job_timeout max_duration max_runtime run_timeout "
        "soft_time_limit soft_timeout task_time_limit task_timeout time_limit timeout_seconds timelimit"
    ),
    "backoff": (
        "backoff_factor backoff_max backoff_seconds backoffs default_retry_delay max_backoff min_backoff retry_after "
        "retry_backoff retry_backoff_max retry_delay retry_delays retry_in retry_interval retry_intervals retry_jitter "
        "retry_policy retry_strategy retry_wait wait_between_retries"
    ),
    "queue": "channel on_queue queue_key queuename queue_name queues routing_key task_queue topic tube",
    "priority": "job_priority prio queue_priority task_priority",
    "connection": "broker connection_name driver on_connection",
    "name": "actor_name identifier job_name task_name",
    "aliases": "alias old_names",
    "concurrency_limit": "concurrent_limit global_concurrency max_concurrency max_concurrent max_parallel max_running",
    "ordering_key": "group_id message_group message_group_id partition_key sequence_key",
    "rate": "limiter max_rate rate_limit rate_limiter ratelimit throttle throttle_rate",
    "unique": (
        "dedupe deduplicate deduplication_id idempotency_key idempotent job_key lock lock_key queueing_lock singleton "
        "unique_by unique_for"
    ),
    "expires_after": "expiration expire_after expire_in expires expires_in max_age message_ttl time_to_live ttl",
    "keep_for": "keep_result keep_results result_expires result_ttl results_ttl retention store_result store_results",
    "retry_until": "max_retry_duration max_retry_time retry_deadline retry_for retry_window",
    "encrypt": "encrypted should_be_encrypted",
    "delay": "apply_after available_at countdown defer_by defer_until delay delay_seconds eta run_at schedule_at",
}
_MEANT = {other: ours for ours, others in _ELSEWHERE.items() for other in others.split()}
_ASKED_BY_DISPATCHES = ("dispatch_if", "concurrency_key", "ordering_key", "fair_key", "rate_key", "cost")
_HANDLERS = ("handler", "run", "perform", "execute", "process", "work", "fire", "invoke", "__call__")


def meant_option(name: str, known: Iterable[str]) -> str | None:
    """The option of outbox that is probably meant by ``name``, of those that are ``known``."""
    known = tuple(known)
    meant = _MEANT.get(name.lower())
    if meant in known:
        return meant
    return next(iter(difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.75)), None)


def check_attributes(where: str, namespace: Mapping[str, Any], known: Iterable[str]) -> None:
    """Refuse what is called almost as an option. ``known`` are the names that the parents of the class have.

    Raises:
        ConfigurationError: an attribute without an annotation is one; pydantic takes those for forgotten fields.
    """
    unknown = [
        name
        for name, value in namespace.items()
        if not (name in known or name.startswith("_") or name == "model_config" or _is_code(value))
    ]
    annotated = _annotations(namespace) if unknown else {}
    for name in unknown:
        if name not in annotated and (advice := _advice(name)):
            raise ConfigurationError(f"{where}: `{name}` is no option of a job: {advice}")


def not_annotated(error: PydanticUserError) -> str:
    """What is wrong with the attribute that ``error`` takes for a forgotten field."""
    detected = error.message.partition(": ")[2].partition(". All model fields")[0]
    return f"{detected} is no option of a job, and no field: annotate it if it is a field or a ClassVar of yours"


def _annotations(namespace: Mapping[str, Any]) -> Mapping[str, Any]:
    if sys.version_info >= (3, 14):
        annotate = annotationlib.get_annotate_from_class_namespace(namespace)
        if annotate is not None:
            return annotationlib.call_annotate_function(annotate, annotationlib.Format.FORWARDREF)
    return namespace.get("__annotations__", {})  # type: ignore[no-any-return]


def check_keywords(where: str, keywords: Iterable[str]) -> None:
    """
    Raises:
        ConfigurationError: an option is given beside the bases of a class, where nothing reads it.
    """
    for name in keywords:
        if name in CLASS_ATTRIBUTES:
            raise ConfigurationError(f"{where}: `{name}` is an attribute in the body of the class, not a keyword")
        if advice := _advice(name):
            raise ConfigurationError(f"{where}: `{name}` is no option of a job: {advice}")


def _advice(name: str) -> str | None:
    meant = meant_option(name, (*CLASS_ATTRIBUTES, "delay"))
    if meant == "delay":
        return "dispatch(job, delay=…) says when one may run; annotate it if it is a field or a ClassVar of yours"
    if meant is None:
        return None
    counted = ", which counts the first attempt, too" if meant == "max_tries" else ""
    return f"did you mean `{meant}`{counted}? (annotate it if it is a field or a ClassVar of yours)"


def _is_code(value: Any) -> bool:
    return callable(value) or isinstance(value, property | cached_property | classmethod | staticmethod)


def check_methods(cls: type, where: str) -> None:
    """
    Raises:
        ConfigurationError: ``handle``, ``failed`` or a method ``backoff`` cannot be called as a worker does.
    """
    if "handle" in getattr(cls, "model_fields", ()):
        raise ConfigurationError(f"{where}: `handle` is the method that a worker calls: name the field otherwise")
    _check_handler(cls, where)
    _check_method(cls, where, "failed", (RuntimeError(),), "with the error as its only argument")
    _check_method(cls, where, "cancelled", (), "without arguments")
    _check_plain_method(cls, where, "unique_key", (), "without arguments")
    # Of these, a class may have a value instead.
    for name in _ASKED_BY_DISPATCHES:
        if callable(getattr(cls, name, None)):
            _check_plain_method(cls, where, name, (), "without arguments")
    if callable(getattr(cls, "backoff", None)):
        _check_plain_method(cls, where, "backoff", (1,), "with the number of the attempt as its only argument")


def _check_plain_method(cls: type, where: str, name: str, arguments: tuple[Any, ...], how: str) -> None:
    _check_method(cls, where, name, arguments, how)
    if inspect.iscoroutinefunction(getattr(cls, name, None)):
        raise ConfigurationError(f"{where}: `{name}` is called and not awaited: make it a plain `def`")


def _check_method(cls: type, where: str, name: str, arguments: tuple[Any, ...], how: str) -> None:
    method = inspect.getattr_static(cls, name, None)
    if method is None or name in getattr(cls, "model_fields", ()):
        return
    # Of the class, because a partialmethod can be called only there.
    if not callable(getattr(cls, name)):
        raise ConfigurationError(f"{where}: `{name}` is called by a worker, and is no method")
    bound = method.__get__(object(), cls) if hasattr(method, "__get__") else method
    try:
        # The signature of a decorator's function is its own: it may fill parameters of what it wraps.
        signature = inspect.signature(bound, follow_wrapped=False)
    except (TypeError, ValueError):
        if inspect.isfunction(method):
            raise ConfigurationError(f"{where}: `{name}` has no parameter for the job: `def {name}(self…)`") from None
        return
    try:
        signature.bind(*arguments)
    except TypeError as error:
        hint = "; what it needs is a field of the job" if name == "handle" else ""
        raise ConfigurationError(f"{where}: `{name}` is called {how}: {error}{hint}") from None


def check_middleware(middleware: Any, where: str) -> None:
    """
    Raises:
        ConfigurationError: it is no list, or one of its entries is not an ``async def`` of ``(job, call_next)``.
    """
    if not isinstance(middleware, list | tuple):
        raise ConfigurationError(f"{where}: middleware is a list of functions, not {middleware!r}")
    for each in middleware:
        if not (inspect.iscoroutinefunction(each) or inspect.iscoroutinefunction(getattr(each, "__call__", None))):  # noqa: B004 - of an object
            raise ConfigurationError(f"{where}: a middleware is an `async def` of (job, call_next), not {each!r}")
        try:
            inspect.signature(each).bind(None, None)
        except TypeError as error:
            raise ConfigurationError(f"{where}: a middleware is called with (job, call_next): {error}") from None


def check_redact(redact: Any, where: str) -> None:
    """
    Raises:
        ConfigurationError: it is no list of names of fields.
    """
    if not isinstance(redact, list | tuple) or not all(isinstance(each, str) and each for each in redact):
        raise ConfigurationError(f"{where}: redact is a list of names of fields, such as ['email'], not {redact!r}")


def _check_handler(cls: type, where: str) -> None:
    parameters = parameters_of(cls)
    if parameters.others or not (parameters.sessions or parameters.resources):
        _check_method(cls, where, "handle", (), "without arguments, or with a session and resources of the worker")
        return
    if len(parameters.sessions) > 1:
        raise ConfigurationError(f"{where}: `handle` takes one session, in which its job is completed, and not more")
    is_coroutine = inspect.iscoroutinefunction(getattr(cls, "handle", None))
    wanted = "AsyncSession" if is_coroutine else "Session"
    if set(parameters.sessions.values()) - {wanted}:
        kind = "async def" if is_coroutine else "plain def"
        raise ConfigurationError(f"{where}: `handle` is {kind}, so its session is annotated with {wanted}")


@lru_cache(maxsize=1_000)
def generator_method(cls: type) -> str | None:
    """The method of ``cls`` that a worker would call for nothing: a generator runs when it is iterated over."""
    methods = {name: getattr(cls, name, None) for name in ("handle", "failed", "cancelled", "backoff")}
    for name, method in methods.items():
        if inspect.isgeneratorfunction(method) or inspect.isasyncgenfunction(method):
            return name
    return None


def other_handler(cls: type) -> str | None:
    """A method of ``cls`` that may have been meant as its ``handle``."""
    # Of the class and its bases alone: every class can be called.
    methods = {name for base in cls.__mro__ for name, value in vars(base).items() if callable(value)}
    found = (name for name in _HANDLERS if name in methods)
    return next(found, None)
