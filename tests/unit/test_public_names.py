"""The names that applications use. Removing or renaming one breaks them: it needs a new major version."""

from __future__ import annotations

import inspect

import outbox
import outbox.sync
from outbox import errors

OPTIONS = ["session", "connection", "queue", "delay", "priority", "max_tries", "timeout", "backoff"]


def test_the_top_level_names() -> None:
    assert set(outbox.__all__) == {
        "Backoff", "Job", "JobContext", "JobId", "OutboxError", "Settings", "WorkerOptions",
        "configure", "disconnect", "dispatch", "dispatch_many", "metadata",
    }  # fmt: skip
    assert set(outbox.sync.__all__) == {"disconnect", "dispatch", "dispatch_many"}


def test_the_arguments_of_dispatch() -> None:
    parameters = inspect.signature(outbox.dispatch).parameters
    assert list(parameters) == ["job", *OPTIONS]
    assert {parameters[name].default for name in OPTIONS} == {None}
    assert inspect.iscoroutinefunction(outbox.dispatch)
    assert not inspect.iscoroutinefunction(outbox.sync.dispatch)


def test_every_error_is_in_the_tree_that_its_module_draws() -> None:
    classes = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert all(issubclass(getattr(errors, name), outbox.OutboxError) for name in classes)
    drawn = errors.__doc__ or ""
    assert {name for name in classes if name not in drawn} == set()
