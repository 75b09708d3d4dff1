"""`Job`: what an application subclasses."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from pydantic import BaseModel, ConfigDict, PrivateAttr
from pydantic.errors import PydanticUserError

from outbox import registry
from outbox.errors import ConfigurationError, InvalidOption
from outbox.job_context import JobContext
from outbox.job_definition import (
    CLASS_ATTRIBUTES,
    check_attributes,
    check_keywords,
    check_methods,
    check_middleware,
    check_redact,
    not_annotated,
)
from outbox.options import NO_OPTIONS, OPTIONS, BackoffOption, UntilOption, check_class_options
from outbox.payload_versions import check_versions
from outbox.policies.attempt_limits import OnExpired
from outbox.policies.declarations import declarations
from outbox.policies.rate_limits import RateLimit

_JOB_NAME = re.compile(r"[\x21-\x7e]{1,255}")
_MEMBERS = ("context", "run_in", "_context")
_RESERVED = (*CLASS_ATTRIBUTES, *_MEMBERS)


if TYPE_CHECKING:
    # Type checkers know pydantic's constructors by this class, and not by one that is derived from it.
    from pydantic._internal._model_construction import ModelMetaclass as JobClass
else:

    class JobClass(type(BaseModel)):
        """Sees the attributes of a job class before pydantic refuses those that it takes for forgotten fields."""

        def __new__(mcs, name, bases, namespace, **keywords):
            where = f"{namespace.get('__module__')}.{namespace.get('__qualname__', name)}"
            if bases != (BaseModel,):
                check_attributes(where, namespace, [known for base in bases for known in dir(base)])
                check_keywords(where, keywords)
            try:
                return super().__new__(mcs, name, bases, namespace, **keywords)
            except PydanticUserError as error:
                if error.code != "model-field-missing-annotation":
                    raise
                raise ConfigurationError(f"{where}: {not_annotated(error)}") from None


CallNext = Callable[["Job"], Awaitable[Any]]
"""Runs what is inside a middleware; returns what ``handle`` returned, and raises what it raised."""

Middleware = Callable[[Any, CallNext], Awaitable[Any]]
"""``async def (job, call_next)``: what it raises is the failure of the attempt."""


class Job(BaseModel, metaclass=JobClass):
    """A unit of work with typed fields, validated when it is made, when it is dispatched and when it is loaded.

    Class options, each of which a dispatch can override:

    * ``queue``: ``[a-z0-9._-]{1,64}``, default ``"default"``
    * ``connection``: the name of a connection; ``None`` takes ``settings.connection``
    * ``priority``: 0 (first) to 9, default 5
    * ``max_tries``: attempts in all, 1 or more; ``None`` takes the worker's ``--max-tries``
    * ``timeout``: seconds for one attempt, 0 for no limit; ``None`` takes the worker's ``--timeout``
    * ``backoff``: seconds between attempts: a number, a list (the last value repeats), a `Backoff`, or a method
      ``backoff(self, attempt) -> seconds``; ``None`` takes the worker's ``--backoff``
    * ``concurrency_key``: a field, or a method that returns a text (None: no key). At most ``concurrency_limit`` jobs
      of a key (1 to 65,535, default 1) run at once; ``on_full``: ``"wait"``, ``"skip"`` or ``"replace_running"``
    * ``ordering_key``: in the same way. One job of a key at a time, in the order of dispatch; ``on_failed``:
      ``"block"`` or ``"skip"``; ``ordering="strict"`` has dispatches of a key wait for each other
    * ``fair_key``: in the same way. Keys take turns; one of ``fair_weight`` 2 (1 to 100) has two turns
    * ``rate``: ``"100/m"``, an `outbox.RateLimit` that classes share, or a list; ``burst``: starts at once, 1 or more,
      default 1; ``rate_key``: a field, or a method that returns a text (None: no key), each value with a limit of its
      own; ``cost``: 1 or more, or a method; ``align``: ``"minute"`` to count by the minutes of the clock
    * ``unique``: ``True``, or the names of the fields by which a job is the same as one that waits. Or a method
      ``unique_key(self) -> str``
    * ``unique_until``: ``"start"``, ``"end"``, or seconds from the dispatch, default ``"start"``
    * ``on_conflict``: ``"ignore"``, ``"raise"`` or ``"replace"``, default ``"ignore"``
    * ``when_running``: ``"queue_one"`` or ``"skip"``, for ``unique_until = "end"``, default ``"queue_one"``
    * ``debounce``: seconds for which each dispatch puts a waiting job off, at most until ``max_wait`` seconds after
      the first
    * ``retry_until``: seconds from the dispatch (a dispatch may give an aware ``datetime``) after which no further
      attempt begins. Without ``max_tries`` of the class or the dispatch, only this bounds the attempts
    * ``max_exceptions``: 1 to 65,535; the job fails with this exception, or timeout, even if attempts are left
    * ``fail_on_timeout``: ``True`` has the job fail when an attempt times out
    * ``max_snoozes``: 1 to 65,535; a further ``snooze`` fails the job
    * ``expires_after``: seconds from the dispatch after which no attempt begins; ``on_expired``: ``"fail"`` or
      ``"drop"``, default ``"fail"``
    * ``dispatch_if``: ``False``, or a method that returns it, has a dispatch make no job
    * ``encrypt``: whether the payload, the result and the errors are stored encrypted, default ``False``
    * ``keep_for``: seconds for which a completed job is kept with its result, progress and duration; what ``handle``
      returns is JSON of at most 64 KB then. Jobs in a database only

    ``name`` pins the name under which rows are stored (default ``module.ClassName``), and ``aliases`` lists the names
    of rows written before a rename.

    ``middleware`` lists functions ``async def (job, call_next)`` around ``handle``, the outermost first.

    ``redact`` lists fields whose values the dashboard hides, in payloads and in the text of errors.

    ``version`` (1 to 65,535) counts the changes of the fields that old payloads do not validate with. `outbox.upgrade`
    marks the functions that turn them into new ones.

    A subclass with a method ``handle`` (``async def``, or a plain ``def``, which runs in a thread) is registered when
    it is defined. ``failed(self, error)``, sync or async, is called once, after the last attempt, and
    ``cancelled(self)`` after a running job was cancelled.

    Raises:
        ConfigurationError: on definition. An option is of a wrong type, out of its range, shadowed by a field or called
            otherwise (``max_retries``). Or ``handle``, ``failed``, ``cancelled`` or ``backoff`` cannot be called as a
            worker does. Or ``context`` or ``run_in`` is replaced.
    """

    # Not a private attribute of pydantic's: making, setting and reading one costs several microseconds per job.
    __slots__ = ("_context",)
    if TYPE_CHECKING:
        # With a value, so that type checkers do not ask for it whenever a job is made.
        _context: JobContext = PrivateAttr()

    model_config = ConfigDict(allow_inf_nan=False)

    name: ClassVar[str] = "outbox.Job"
    aliases: ClassVar[Sequence[str]] = ()
    middleware: ClassVar[Sequence[Middleware]] = ()
    redact: ClassVar[Sequence[str]] = ()
    version: ClassVar[int | None] = None
    queue: ClassVar[str] = OPTIONS["queue"].default
    connection: ClassVar[str | None] = OPTIONS["connection"].default
    priority: ClassVar[int] = OPTIONS["priority"].default
    max_tries: ClassVar[int | None] = OPTIONS["max_tries"].default
    timeout: ClassVar[float | None] = OPTIONS["timeout"].default
    # Its type stands in the value: where it is declared, pyright refuses a method of this name in a subclass.
    backoff: ClassVar = cast("BackoffOption | Callable[[Any, int], float] | None", OPTIONS["backoff"].default)
    concurrency_key: ClassVar = cast("str | Callable[[Any], str | None] | None", None)
    concurrency_limit: ClassVar[int | None] = None
    on_full: ClassVar[str | None] = None
    ordering_key: ClassVar = cast("str | Callable[[Any], str | None] | None", None)
    on_failed: ClassVar[str | None] = None
    ordering: ClassVar[str | None] = None
    fair_key: ClassVar = cast("str | Callable[[Any], str | None] | None", None)
    fair_weight: ClassVar[int | None] = None
    rate: ClassVar[str | RateLimit | Sequence[str | RateLimit] | None] = None
    burst: ClassVar[int | None] = None
    rate_key: ClassVar = cast("str | Callable[[Any], str | None] | None", None)
    cost: ClassVar = cast("int | Callable[[Any], int] | None", None)
    align: ClassVar[str | None] = None
    unique: ClassVar[bool | Sequence[str] | None] = OPTIONS["unique"].default
    unique_until: ClassVar[UntilOption | None] = OPTIONS["unique_until"].default
    on_conflict: ClassVar[Literal["ignore", "raise", "replace"] | None] = OPTIONS["on_conflict"].default
    when_running: ClassVar[Literal["queue_one", "skip"] | None] = OPTIONS["when_running"].default
    debounce: ClassVar[float | timedelta | None] = OPTIONS["debounce"].default
    max_wait: ClassVar[float | timedelta | None] = OPTIONS["max_wait"].default
    retry_until: ClassVar[float | timedelta | None] = None
    max_exceptions: ClassVar[int | None] = None
    fail_on_timeout: ClassVar[bool | None] = None
    max_snoozes: ClassVar[int | None] = None
    expires_after: ClassVar[float | timedelta | None] = None
    on_expired: ClassVar[OnExpired | None] = None
    dispatch_if: ClassVar = cast("bool | Callable[[Any], bool] | None", None)
    encrypt: ClassVar[bool] = OPTIONS["encrypt"].default
    keep_for: ClassVar[float | timedelta | None] = OPTIONS["keep_for"].default

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if "name" not in cls.__dict__:
            cls.name = f"{registry.importable_module(cls.__module__)}.{cls.__qualname__}"
        if "aliases" not in cls.__dict__:
            cls.aliases = ()
        _check_definition(cls)
        check_methods(cls, f"{cls.__module__}.{cls.__qualname__}")
        if callable(getattr(cls, "handle", None)):
            registry.register(cls)

    @property
    def context(self) -> JobContext:
        """What the running job knows of itself, and how it ends itself early.

        Raises:
            RuntimeError: the job is not being run by a worker.
        """
        try:
            return self._context
        except AttributeError:
            raise RuntimeError(f"{self.name} has no context: it is not being run by a worker") from None

    def run_in(self, context: JobContext) -> None:
        """Give the job its context. What a worker does before it calls ``handle``, and a test of ``handle`` may."""
        object.__setattr__(self, "_context", context)


# For each job class, pydantic evaluates the annotations of its bases, and these are most of the time that a definition
# takes. That they are no fields is all it has to know of them.
Job.__annotations__.update(dict.fromkeys(Job.__class_vars__, ClassVar))


def _check_definition(cls: type[Job]) -> None:
    where = f"{cls.__module__}.{cls.__qualname__}"
    shadowed = [name for name in _RESERVED if name in cls.model_fields]
    if shadowed:
        hint = "drop its annotation if you meant the option, or " if shadowed[0] in CLASS_ATTRIBUTES else ""
        raise ConfigurationError(
            f"{where}: `{shadowed[0]}` belongs to the job class and cannot be a field: {hint}name the field otherwise"
        )
    taken = [name for name in _MEMBERS if getattr(cls, name) is not getattr(Job, name)]
    taken += [name for name in _MEMBERS if name in cls.__private_attributes__]
    if taken:
        raise ConfigurationError(f"{where}: `{taken[0]}` is what a worker needs of a job: give yours another name")
    _check_names(cls, where)
    check_middleware(cls.middleware, where)
    check_redact(cls.redact, where)
    check_versions(cls)
    try:
        check_class_options(cls)
        declarations(cls, NO_OPTIONS)
    except InvalidOption as error:
        raise ConfigurationError(f"{where}: {error}") from None


def _check_names(cls: type[Job], where: str) -> None:
    if not isinstance(cls.name, str) or not _JOB_NAME.fullmatch(cls.name):
        raise ConfigurationError(f"{where}: a job's name is 1 to 255 printable ASCII characters, not {cls.name!r}")
    if isinstance(cls.aliases, str) or not isinstance(cls.aliases, Collection):
        raise ConfigurationError(f"{where}: aliases is a list of names, not {cls.aliases!r}")
    for alias in cls.aliases:
        if not isinstance(alias, str) or not _JOB_NAME.fullmatch(alias):
            raise ConfigurationError(f"{where}: an alias is 1 to 255 printable ASCII characters, not {alias!r}")
