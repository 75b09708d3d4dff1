"""Settings: command-line flags > environment and ``.env`` > ``[tool.outbox]`` in pyproject.toml > defaults."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable
from difflib import get_close_matches
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from outbox.backoff import Backoff
from outbox.encryption import check_key
from outbox.envelope import DEFAULT_PAYLOAD_LIMIT
from outbox.errors import ConfigurationError, InvalidOption
from outbox.options import check_queue
from outbox.resources import Lifespan
from outbox.settings_files import ENV_FILE, check_env_file, pyproject_table

DATABASE = "database"

_VARIABLE = "OUTBOX_"
_SECRET = {"DATABASE_URL", "REDIS_URL", "OUTBOX_CONNECTIONS", "database_url", "redis_url", "connections", "url"}
_SECRET |= {"encryption_keys", "OUTBOX_ENCRYPTION_KEYS", "replica_url", "OUTBOX_REPLICA_URL"}
_ALIKE = 0.75
"""How much a name has in common with that of a setting, of 1, to be taken for a slip in writing it."""


def _split(value: Any) -> Any:
    """``"a, b"`` is how a list is written in an environment variable or after a flag."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


class _Layered(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix=_VARIABLE,
        env_file=ENV_FILE,
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        populate_by_name=True,
    )

    def __init__(self, **given: Any) -> None:
        """
        Raises:
            ConfigurationError: as `load`.
        """
        _refuse_unknown("", given, _names(type(self)))
        check_env_file()
        try:
            super().__init__(**given)
        except ValidationError as error:
            raise ConfigurationError("; ".join(_problem(problem) for problem in error.errors())) from None
        except SettingsError as error:
            raise ConfigurationError(
                f'{error}: write JSON, {{"NAME": {{"driver": "redis", "url": "redis://…"}}}}, or leave it to '
                "[tool.outbox.connections.NAME] in pyproject.toml"
            ) from None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is pydantic-settings'
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        file, table = pyproject_table()
        # One table for both: how workers work, and where jobs are kept.
        _refuse_unknown(f"{file}, [tool.outbox]: ", table, _names(Settings) | _names(WorkerOptions))
        return init_settings, env_settings, dotenv_settings, InitSettingsSource(settings_cls, table)

    @classmethod
    def load(cls, **given: Any) -> Self:
        """Build from all layers; ``given`` (flags) go before every other.

        Raises:
            ConfigurationError: there is no setting of a name that code or pyproject.toml gives; a value is wrong, and
                the message names it and its range; or a file cannot be read.
        """
        return cls(**given)


def _problem(problem: Any) -> str:
    where = ".".join(str(part) for part in problem["loc"])
    message = problem["msg"].removeprefix("Value error, ")
    # A URL has a password in it, and so may anything that was meant to be one.
    got = "" if _SECRET & set(problem["loc"]) else f" (got {problem['input']!r})"
    return f"{where}: {message}{got}"


def _names(settings: type[BaseSettings]) -> set[str]:
    """What a setting is called in code and in pyproject.toml."""
    aliases = {str(field.validation_alias) for field in settings.model_fields.values() if field.validation_alias}
    return aliases | set(settings.model_fields)


def _refuse_unknown(where: str, given: Iterable[str], known: Collection[str]) -> None:
    """A default in place of what was meant would go unnoticed until it matters."""
    for name in given:
        if name not in known:
            meant = _meant(name, known)
            raise ConfigurationError(
                f"{where}there is no setting {name!r}" + (f"; is {meant!r} meant?" if meant else "")
            )


def _meant(name: str, known: Collection[str]) -> str | None:
    return next(iter(get_close_matches(name, sorted(known), n=1, cutoff=_ALIKE)), None)


def misspelt_variables() -> dict[str, str]:
    """Environment variables that nothing reads, with what was probably meant. Others may use the prefix as well, so
    that these are no errors."""
    fields = {**Settings.model_fields, **WorkerOptions.model_fields}
    names = {name: str(field.validation_alias or f"{_VARIABLE}{name.upper()}") for name, field in fields.items()}
    found: dict[str, str] = {}
    for variable in sorted(os.environ):
        if variable.startswith(_VARIABLE) and variable.upper() not in names.values():
            meant = _meant(variable.removeprefix(_VARIABLE).lower(), names)
            if meant is not None:
                found[variable] = names[meant]
    return found


class ConnectionSettings(BaseModel):
    """``[tool.outbox.connections.NAME]``: another store beside ``database`` and ``redis``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    driver: str = DATABASE
    url: str = Field(repr=False)
    replica_url: str | None = Field(default=None, repr=False)
    """A copy of the database, from which the dashboard and commands read that change nothing."""


class Settings(_Layered):
    """Where jobs are kept, and what may run."""

    connection: str = Field(default=DATABASE, validation_alias="QUEUE_CONNECTION")
    database_url: str = Field(default="sqlite+aiosqlite:///outbox.db", validation_alias="DATABASE_URL", repr=False)
    replica_url: str | None = Field(default=None, repr=False)
    """A replica of ``database_url``, from which the dashboard and commands read that change nothing."""
    redis_url: str | None = Field(default=None, validation_alias="REDIS_URL", repr=False)
    jobs: Annotated[tuple[str, ...], NoDecode] = ()
    payload_limit: int = Field(default=DEFAULT_PAYLOAD_LIMIT, ge=1)
    encryption_keys: Annotated[tuple[str, ...], NoDecode] = Field(default=(), repr=False)
    """Of encrypted jobs, in base64. The first one writes, all read."""
    inbox_keep: float = Field(default=7 * 86_400, ge=1, le=3_650 * 86_400)
    """Seconds for which a received message is known again."""
    connections: dict[str, ConnectionSettings] = Field(default_factory=dict)
    dispatch_middleware: Annotated[tuple[str | Callable[..., Any], ...], NoDecode] = ()
    """Functions around each dispatch, each as ``module:function`` or as the function, the outermost first."""

    _split_lists = field_validator("jobs", "encryption_keys", "dispatch_middleware", mode="before")(_split)

    @field_validator("encryption_keys")
    @classmethod
    def _check_keys(cls, keys: tuple[str, ...]) -> tuple[str, ...]:
        for key in keys:
            check_key(key)
        return keys


class WorkerOptions(_Layered):
    """How one worker works: the flags of ``python -m outbox.work``, and the content of a worker profile.

    Times are seconds. In a profile, give what differs from the defaults; flags go before it, the environment and
    pyproject.toml fill what neither gives.
    """

    connection: Annotated[tuple[str, ...], NoDecode] = ()
    """Connections to drain; empty for the one of the settings."""
    queue: Annotated[tuple[str, ...], NoDecode] = ("default",)
    """Queues in order of preference."""
    concurrency: int = Field(default=20, ge=1, le=10_000)
    """Jobs that run at once in one process."""
    processes: int = Field(default=1, ge=1, le=256)
    max_jobs: int = Field(default=0, ge=0)
    """Stop after so many attempts; 0 for no limit. With several processes, each that reaches it is replaced."""
    max_time: float = Field(default=0, ge=0)
    """Claim nothing after so long, and stop when what runs has ended; 0 for no limit. With several processes, each is
    replaced."""
    max_tries: int = Field(default=3, ge=1, le=65_535)
    """For jobs that do not say."""
    timeout: float = Field(default=60, ge=0)
    """For jobs that do not say; 0 for no limit."""
    backoff: Annotated[tuple[float, ...], NoDecode] = (1.0, 10.0, 60.0)
    """For jobs that do not say; the last value repeats."""
    sleep: float = Field(default=1.0, gt=0)
    """The pause between two looks for work. It is made a little longer at random, and by every other idle worker, so
    that together they look five times a second at most."""
    wake: Literal["auto", "poll", "redis", "binlog"] = "auto"
    """What tells an idle worker of new jobs. Without it, and whenever it fails, they are found by looking."""
    rest: float = Field(default=0, ge=0)
    """A pause after each job, in its slot."""
    memory: int = Field(default=0, ge=0)
    """Stop when the process holds more than so many MiB; 0 for no limit. With several processes, each is replaced."""
    aging: float = Field(default=0, ge=0)
    """One claim in ten takes jobs of the lowest priority whose first job has waited for longer; 0: none does. For
    jobs in a database."""
    lease: float = Field(default=30, ge=1, le=86_400)
    """How long a claim holds without renewal; it is renewed at a third of it."""
    grace: float = Field(default=30, ge=0)
    """How long running jobs may go on after TERM before they are handed back."""
    once: bool = False
    """Look once, run the next job if there is one, and stop."""
    stop_when_empty: bool = False
    """Stop when nothing is ready, delayed or reserved in these queues."""
    name: str | None = Field(default=None, pattern=r"^[\x21-\x7e]{1,64}$")
    """What logs and ``outbox workers`` call it; default ``host:pid``."""
    json_logs: bool = Field(default=False, validation_alias="OUTBOX_JSON")
    """One JSON object per line instead of lines for people."""
    relay: bool = False
    """Drain nothing; only move jobs from the database to the Redis that they are for."""
    reload: bool = False
    """For development: restart when Python files change."""
    health_port: int | None = Field(default=None, ge=0, le=65_535)
    """Answer ``/live``, ``/ready`` and ``/metrics`` over HTTP; 0: on any free port. Without it, nothing listens."""
    health_host: str = Field(default="127.0.0.1", min_length=1)
    """The address that the port is on. It is reached from this machine only, unless another is given."""

    middleware: Annotated[tuple[str, ...], NoDecode] = ()
    """Middleware around the handlers of all jobs, each as ``module:function``, the outermost first."""

    lifespan: Annotated[str | Lifespan | None, NoDecode] = None
    """What makes the resources of jobs, as ``module:function`` or as the function: see `outbox.Resources`."""

    _given: dict[str, Any] = PrivateAttr(default_factory=dict)

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self._given = given

    def overridden(self, **flags: Any) -> WorkerOptions:
        """The same with ``flags`` in front.

        Raises:
            ConfigurationError: a value is wrong.
        """
        return WorkerOptions.load(**{**self._given, **flags})

    @field_validator("connection", "queue", "backoff", "middleware", mode="before")
    @classmethod
    def _split_lists(cls, value: Any) -> Any:
        return _split(value) if isinstance(value, str) else (value,) if isinstance(value, int | float) else value

    @field_validator("connection", mode="before")
    @classmethod
    def _check_connection_is_named(cls, value: Any) -> Any:
        if isinstance(value, str) and not _split(value):
            raise ValueError("name at least one connection")
        return value

    @field_validator("connection")
    @classmethod
    def _name_each_once(cls, connections: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(connections))

    @field_validator("queue")
    @classmethod
    def _check_queues(cls, queues: tuple[str, ...]) -> tuple[str, ...]:
        if not queues:
            raise ValueError("name at least one queue")
        for queue in queues:
            try:
                check_queue(queue)
            except InvalidOption as error:
                raise ValueError(str(error)) from None
        return tuple(dict.fromkeys(queues))

    @field_validator("backoff")
    @classmethod
    def _check_backoff(cls, delays: tuple[float, ...]) -> tuple[float, ...]:
        try:
            return Backoff(delays).delays
        except InvalidOption as error:
            raise ValueError(str(error)) from None
