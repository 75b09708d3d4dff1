"""Settings: command-line flags > environment and ``.env`` > ``[tool.outbox]`` in pyproject.toml > defaults."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    PyprojectTomlConfigSettingsSource,
    SettingsConfigDict,
)

from outbox.backoff import Backoff
from outbox.envelope import DEFAULT_PAYLOAD_LIMIT
from outbox.errors import ConfigurationError, InvalidOption
from outbox.job import check_queue

DATABASE = "database"
REDIS = "redis"


def _split(value: Any) -> Any:
    """``"a, b"`` is how a list is written in an environment variable or after a flag."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


class _Layered(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix="OUTBOX_",
        env_file=".env",
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        pyproject_toml_table_header=("tool", "outbox"),
        pyproject_toml_depth=3,
        extra="ignore",
        frozen=True,
        populate_by_name=True,
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is pydantic-settings'
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, dotenv_settings, PyprojectTomlConfigSettingsSource(settings_cls)

    @classmethod
    def load(cls, **given: Any) -> Self:
        """Build from all layers; ``given`` (flags) go before every other.

        Raises:
            ConfigurationError: a value is wrong; the message names it and its range.
        """
        try:
            return cls(**given)
        except ValidationError as error:
            raise ConfigurationError("; ".join(_problem(problem) for problem in error.errors())) from None


def _problem(problem: Any) -> str:
    where = ".".join(str(part) for part in problem["loc"])
    message = problem["msg"].removeprefix("Value error, ")
    return f"{where}: {message} (got {problem['input']!r})"


class ConnectionSettings(BaseModel):
    """``[tool.outbox.connections.NAME]``: another store beside ``database`` and ``redis``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    driver: str = DATABASE
    url: str


class Settings(_Layered):
    """Where jobs are kept, and what may run."""

    connection: str = Field(default=DATABASE, validation_alias="QUEUE_CONNECTION")
    database_url: str = Field(default="sqlite+aiosqlite:///outbox.db", validation_alias="DATABASE_URL")
    redis_url: str | None = Field(default=None, validation_alias="REDIS_URL")
    jobs: Annotated[tuple[str, ...], NoDecode] = ()
    payload_limit: int = Field(default=DEFAULT_PAYLOAD_LIMIT, ge=1)
    connections: dict[str, ConnectionSettings] = Field(default_factory=dict)

    _split_jobs = field_validator("jobs", mode="before")(_split)


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

    @field_validator("connection", "queue", "backoff", mode="before")
    @classmethod
    def _split_lists(cls, value: Any) -> Any:
        return _split(value) if isinstance(value, str) else (value,) if isinstance(value, int | float) else value

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
