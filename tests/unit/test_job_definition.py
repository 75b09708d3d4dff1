"""A class that cannot be run as it was meant is refused before any of its jobs is stored."""

from __future__ import annotations

import functools
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import pytest
from pydantic import BaseModel

import outbox.sync
from outbox import Job
from outbox.errors import ConfigurationError, InvalidJob
from outbox.registry import import_jobs, unreachable

Row = TypeVar("Row")


def define(**members: Any) -> type[Job]:
    return type("Defined", (Job,), {"__module__": __name__, "handle": lambda self: None, **members})


@pytest.mark.parametrize(
    ("attribute", "meant"),
    [
        ("max_retries", "`max_tries`, which counts the first attempt"),
        ("retries", "`max_tries`"),
        ("tries", "`max_tries`"),
        ("max_attempts", "`max_tries`"),
        ("MAX_RETRIES", "`max_tries`"),
        ("max_trys", "`max_tries`"),
        ("retry_delay", "`backoff`"),
        ("retry_backoff", "`backoff`"),
        ("default_retry_delay", "`backoff`"),
        ("time_limit", "`timeout`"),
        ("soft_time_limit", "`timeout`"),
        ("job_timeout", "`timeout`"),
        ("time_out", "`timeout`"),
        ("queue_name", "`queue`"),
        ("routing_key", "`queue`"),
        ("prioritty", "`priority`"),
        ("task_name", "`name`"),
        ("rate_limit", "`rate`"),
        ("ttl", "`expires_after`"),
        ("result_ttl", "`keep_for`"),
        ("queueing_lock", "`unique`"),
        ("max_concurrency", "`concurrency_limit`"),
        ("partition_key", "`ordering_key`"),
        ("retry_window", "`retry_until`"),
        ("countdown", r"dispatch\(job, delay=…\)"),
        ("delay", r"dispatch\(job, delay=…\)"),
        ("eta", r"dispatch\(job, delay=…\)"),
    ],
)
def test_an_option_of_another_queue_is_answered_with_that_of_outbox(attribute: str, meant: str) -> None:
    with pytest.raises(ConfigurationError, match=f"Defined: `{attribute}` is no option of a job: .*{meant}"):
        define(**{attribute: 3})
    with pytest.raises(ConfigurationError, match=meant):
        type("Defined", (Job,), {"__module__": __name__}, **{attribute: 3})


def test_an_attribute_that_is_no_option_and_has_no_annotation_is_refused_in_one_line() -> None:
    with pytest.raises(
        ConfigurationError, match=r"Defined: `acks_late = True` is no option of a job, and no field: .*"
    ) as caught:
        define(acks_late=True)
    assert "annotate it" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_option_beside_the_bases_of_a_class_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="`queue` is an attribute in the body"):

        class Mail(Job, queue="mail"):
            """Not defined."""


def test_names_of_other_queues_may_be_fields_methods_and_constants() -> None:
    class Fetch(Job, frozen=True):
        retries: int = 3
        delay: ClassVar[int] = 5

        def handle(self) -> None:
            """Not run here."""

        def run(self) -> None:
            """A method of the application's own."""

    assert (Fetch().retries, Fetch.delay) == (3, 5)


def injected(function: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(function)
    def filled(*arguments: Any) -> None:
        function(*arguments, service=None)

    return filled


@pytest.mark.parametrize(
    ("members", "says"),
    [
        (
            {"handle": lambda self, order: None},
            r"`handle` is called without arguments, or with a session .*: .*'order'; .* field of the job",
        ),
        ({"handle": lambda: None}, "`handle` has no parameter for the job"),
        ({"handle": staticmethod(lambda self: None)}, "`handle` is called without arguments"),
        ({"handle": classmethod(lambda cls, order: None)}, "`handle` is called without arguments"),
        (
            {"handle": functools.partialmethod(lambda self, order, size: None, 7)},
            "`handle` is called without arguments",
        ),
        ({"handle": property(lambda self: None)}, "`handle` is called by a worker, and is no method"),
        ({"handle": 5, "__annotations__": {"handle": int}}, "`handle` is the method that a worker calls"),
        ({"failed": lambda self: None}, "`failed` is called with the error"),
        ({"failed": lambda self, job, error: None}, "`failed` is called with the error"),
        ({"backoff": lambda self: 5}, "`backoff` is called with the number of the attempt"),
        ({"backoff": lambda attempt: 5}, "`backoff` is called with the number of the attempt"),
    ],
)
def test_a_method_that_a_worker_could_not_call_is_refused(members: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=f"Defined: {says}"):
        define(**members)


def test_a_coroutine_is_no_backoff() -> None:
    async def backoff(self: Any, attempt: int) -> float:
        return 5.0

    with pytest.raises(ConfigurationError, match="`backoff` is called and not awaited"):
        define(backoff=backoff)


@pytest.mark.parametrize(
    "members",
    [
        {"handle": lambda self, order=None, *others, **more: None},
        {"handle": injected(lambda self, service: None)},
        {"handle": staticmethod(lambda: None)},
        {"handle": functools.partialmethod(lambda self, order: None, order=7)},
        {"failed": lambda self, error, *, loud=False: None},
        {"failed": staticmethod(lambda error: None)},
        {"backoff": lambda self, attempt: 5},
        {"backoff": staticmethod(lambda attempt: 5)},
    ],
)
def test_a_method_that_a_worker_can_call_is_accepted(members: dict[str, Any]) -> None:
    assert issubclass(define(**members), Job)


class Yields(Job):
    async def handle(self) -> AsyncIterator[int]:
        yield 1


class YieldsWhenFailed(Job):
    def handle(self) -> None:
        """Not run here."""

    def failed(self, error: BaseException) -> Iterator[int]:
        yield 1


class Runs(Job):
    def run(self) -> None:
        """Not run here."""


class Handler(Job):
    def handler(self) -> None:
        """Not run here."""


class Nothing(Job):
    number: int = 1


class Page(Job, Generic[Row]):
    rows: list[Row]

    def handle(self) -> None:
        """Not run here."""


class Order(BaseModel):
    number: int


class OrderPage(Page[Order]):
    """Known by its own name."""


NumberPage = Page[int]


def made_by_a_function() -> type[Job]:
    class Made(Job):
        def handle(self) -> None:
            """Not run here."""

    return Made


MadeOnImport = made_by_a_function()


class Replaced(Job):
    def handle(self) -> None:
        """Not run here."""


First = Replaced


class Replaced(Job):  # type: ignore[no-redef]
    def handle(self) -> None:
        """Not run here."""


@pytest.mark.parametrize(
    ("job", "says"),
    [
        (Yields(), "`handle` is a generator"),
        (YieldsWhenFailed(), "`failed` is a generator"),
        (Runs(), "no method `handle`.* rename its method `run`"),
        (Handler(), "no method `handle`.* rename its method `handler`"),
        (Nothing(), "no method `handle`, so no worker could run it$"),
        (First(), "defined later has the same name"),
    ],
)
def test_a_dispatch_refuses_what_a_worker_could_not_run(job: Job, says: str) -> None:
    with pytest.raises(InvalidJob, match=says):
        outbox.sync.dispatch(job)


def test_a_dispatch_refuses_a_generic_job_that_is_parametrised_elsewhere() -> None:
    with pytest.raises(InvalidJob, match=r"parametrised outside the module .*class Named\(Page\[str\]\)"):
        outbox.sync.dispatch(Page[str](rows=["a"]))


def test_a_class_that_an_import_makes_can_be_dispatched() -> None:
    assert [unreachable(kind) for kind in (OrderPage, NumberPage, MadeOnImport, Replaced)] == [None] * 4


def test_a_dispatch_refuses_a_class_of_a_function_unless_its_name_is_pinned() -> None:
    class Pinned(Job):
        name = "tests.Pinned"

        def handle(self) -> None:
            """Not run here."""

    assert unreachable(Pinned) is None
    with pytest.raises(InvalidJob, match="define it at the level of a module"):
        outbox.sync.dispatch(made_by_a_function()())


def test_a_dispatch_refuses_a_class_of_a_module_that_is_not_there() -> None:
    with pytest.raises(InvalidJob, match=r"no worker finds it by importing nowhere\.jobs"):
        outbox.sync.dispatch(define(__module__="nowhere.jobs")())


def test_a_dispatch_refuses_a_class_whose_place_another_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "replacing_jobs.py").write_text("Taken = 5\n")
    monkeypatch.syspath_prepend(tmp_path)
    import_jobs(["replacing_jobs"])
    kind = type("Taken", (Job,), {"__module__": "replacing_jobs", "handle": lambda self: None})
    with pytest.raises(InvalidJob, match=r"replacing_jobs\.Taken is something else"):
        outbox.sync.dispatch(kind())
    del sys.modules["replacing_jobs"]
