"""Parameters of ``handle``: what a definition takes and refuses, and what they are filled with."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from outbox import Job, Resources
from outbox.errors import ConfigurationError
from outbox.handler_parameters import parameters_of, resource_types
from outbox.testing import perform
from outbox.testing.sync import perform as perform_sync


class Client: ...


class Log(list[str]): ...


class Shared(Job):
    queue = "resources.unit"

    fails: bool = False

    async def handle(self, client: Client, log: Log) -> None:
        log.append(type(client).__name__)
        if self.fails:
            raise ValueError("no")


class InThread(Job):
    queue = "resources.unit"

    def handle(self, *, log: Log) -> None:
        log.append("thread")


class WithSession(Job):
    queue = "resources.unit"

    async def handle(self, log: Log, session: AsyncSession) -> None: ...


async def test_parameters_are_filled_by_their_types() -> None:
    log = Log()
    assert (await perform(Shared(), resources={Client: Client(), Log: log})).completed
    assert (await perform(InThread(), resources={Log: log})).completed
    assert log == ["Client", "thread"]
    assert resource_types(Shared) == {"client": Client, "log": Log}


def test_the_same_without_async() -> None:
    log = Log()
    assert perform_sync(InThread(), resources={Log: log}).completed
    assert log == ["thread"]


def test_a_session_stands_beside_resources() -> None:
    assert parameters_of(WithSession) == ({"session": "AsyncSession"}, ("log",), ())


@pytest.mark.parametrize("fails", [False, True])
async def test_what_is_made_for_a_job_is_closed_whatever_it_does(fails: bool) -> None:
    steps = Log()

    async def client(job: Shared) -> AsyncIterator[Client]:
        steps.append(f"open {job.fails}")
        yield Client()
        steps.append("close client")

    def log() -> Iterator[Log]:
        yield steps
        steps.append("close log")

    resources = Resources()
    resources.provide(Client, client, scope="job")
    resources.provide(Log, log, scope="job")
    performed = await perform(Shared(fails=fails), resources=resources)
    assert performed.completed is not fails
    assert steps == [f"open {fails}", "Client", "close log", "close client"]


async def test_functions_make_resources_too() -> None:
    log = Log()

    async def client() -> Client:
        return Client()

    resources = Resources({Log: log})
    resources.provide(Client, client, scope="job")
    assert (await perform(Shared(), resources=resources)).completed
    assert log == ["Client"]


async def test_a_generator_that_yields_twice_or_raises_is_said() -> None:
    async def client() -> AsyncIterator[Client]:
        yield Client()
        yield Client()

    def log() -> Iterator[Log]:
        yield Log()
        raise OSError("disk full")

    resources = Resources()
    resources.provide(Client, client, scope="job")
    resources.provide(Log, log, scope="job")
    with pytest.raises(BaseExceptionGroup) as raised:
        await perform(Shared(), resources=resources)
    assert [str(error) for error in raised.value.exceptions] == [
        "disk full",
        "a resource of a job is made by a generator that yields once, and it yields again",
    ]


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_generator_that_yields_nothing_is_said(is_async: bool) -> None:
    async def later() -> AsyncIterator[Client]:
        for client in ():
            yield client

    def client() -> Iterator[Client]:
        yield from ()

    resources = Resources({Log: Log()})
    resources.provide(Client, later if is_async else client, scope="job")
    performed = await perform(Shared(), resources=resources)
    assert str(performed.error) == (
        "a resource of a job is made by a generator that yields once, and it has yielded nothing"
    )


async def test_what_a_factory_raises_is_the_failure_of_the_attempt() -> None:
    def client() -> Client:
        raise ConnectionError("refused")

    resources = Resources({Log: Log()})
    resources.provide(Client, client, scope="job")
    performed = await perform(Shared(), resources=resources, max_tries=2)
    assert performed.retried
    assert str(performed.error) == "refused"


async def test_a_resource_that_is_not_given_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"nothing provides `log: .*Log` of .*Shared\.handle: provide it in"):
        await perform(Shared(), resources={Client: Client()})


def plain(one: Any, two: Any) -> None: ...


@pytest.mark.parametrize(
    ("kind", "value", "scope", "message"),
    [
        (Client, 1, "process", "the scope of a resource is 'worker' or 'job', not 'process'"),
        (Log, 1, "worker", "Log is provided already"),
        (Client, 1, "job", "is made by a function, not 1"),
        (Client, plain, "job", "is called with the job, or with nothing"),
    ],
)
def test_what_cannot_be_provided_is_refused(kind: type, value: Any, scope: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Resources({Log: Log()}).provide(kind, value, scope=scope)


def with_int(self: Any, number: int) -> None: ...
def with_list(self: Any, numbers: list[str]) -> None: ...
def with_union(self: Any, client: Client | None) -> None: ...
def by_position(self: Any, client: Client, /) -> None: ...
def two_sessions(self: Any, one: Session, two: Session) -> None: ...
def async_session_in_a_thread(self: Any, log: Log, session: AsyncSession) -> None: ...


@pytest.mark.parametrize(
    ("handle", "message"),
    [
        (with_int, "`handle` is called without arguments, or with .*; what it needs is a field of the job"),
        (with_list, "what it needs is a field of the job"),
        (with_union, "what it needs is a field of the job"),
        (by_position, "what it needs is a field of the job"),
        (two_sessions, "`handle` takes one session"),
        (async_session_in_a_thread, "`handle` is plain def, so its session is annotated with Session"),
    ],
)
def test_parameters_that_no_worker_can_fill_are_refused(handle: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        type(Job)("Refused", (Job,), {"__module__": __name__, "__qualname__": "Refused", "handle": handle})


def test_an_annotation_that_cannot_be_resolved_is_said() -> None:
    class Unresolved(Job):
        queue = "resources.unit"

        async def handle(self, client: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(ConfigurationError, match="an annotation of `handle` cannot be resolved: name 'Nowhere'"):
        Resources().check([Unresolved])
