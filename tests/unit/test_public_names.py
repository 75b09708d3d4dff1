"""The names that applications use. Removing or renaming one breaks them: it needs a new major version."""

from __future__ import annotations

import inspect

import pytest

import outbox
import outbox.sync
from outbox import errors, migrations

OPERATING = {
    "cancel", "change", "clear", "counts", "depths", "failed_groups", "failed_jobs", "find", "finished_jobs", "forget",
    "forget_all", "jobs", "metrics", "pause", "pauses", "progress", "reschedule", "result", "resume", "retry",
    "retry_all", "workers",
}  # fmt: skip
OPTIONS = ["session", "connection", "queue", "delay", "priority", "max_tries", "timeout", "backoff"]
OPTIONS += ["concurrency_key", "concurrency_limit", "on_full", "ordering_key", "on_failed", "ordering", "fair_key"]
OPTIONS += ["fair_weight", "rate", "burst", "rate_key", "cost", "align"]
OPTIONS += ["unique", "unique_until", "on_conflict", "when_running", "debounce", "max_wait"]
OPTIONS += ["retry_until", "max_exceptions", "fail_on_timeout", "max_snoozes", "expires_after", "on_expired"]
OPTIONS += ["dispatch_if", "encrypt", "keep_for"]


def test_the_top_level_names() -> None:
    values = {
        "BulkOperation", "BulkPreview", "DepthPoint", "FailedGroup", "FailedJob", "Failure", "FinishedJob", "JobPage",
        "JobPlace", "JobProgress", "JobState", "MetricPoint", "Pause", "QueueCounts", "RunningJob", "StoredJob",
        "WorkerStatus",
    }  # fmt: skip
    assert set(outbox.__all__) == OPERATING | values | {
        "Backoff", "Batch", "BatchStatus", "CallNext", "CallNextDispatch", "DispatchMiddleware",
        "Job", "JobContext", "JobId", "Middleware", "Outbox",
        "OutboxError", "RateLimit", "Resources", "Settings", "Worker", "WorkerOptions",
        "configure", "disconnect", "add_to_batch", "batch", "batches", "cancel_batch",
        "dispatch", "dispatch_batch", "dispatch_chain", "dispatch_many", "dispatch_now", "metadata", "retry_batch",
        "context_variables", "bulk", "inbox", "limits", "receive", "schedule", "schedules", "skip_if",
        "throttle_exceptions", "upgrade",
    }  # fmt: skip
    assert set(outbox.sync.__all__) == OPERATING | {
        "add_to_batch", "batch", "batches", "cancel_batch", "disconnect", "dispatch", "dispatch_batch",
        "dispatch_chain", "dispatch_many", "dispatch_now", "bulk", "inbox", "limits", "receive", "retry_batch",
        "schedules",
    }  # fmt: skip
    assert all(getattr(outbox, name) is not None for name in outbox.__all__)


@pytest.mark.parametrize("name", sorted(OPERATING))
def test_what_operators_do_takes_the_same_arguments_without_async(name: str) -> None:
    with_async, without = getattr(outbox, name), getattr(outbox.sync, name)
    assert inspect.iscoroutinefunction(with_async)
    assert not inspect.iscoroutinefunction(without)
    parameters = inspect.signature(with_async).parameters
    assert list(inspect.signature(without).parameters) == list(parameters)
    assert parameters["connection"].kind is inspect.Parameter.KEYWORD_ONLY
    assert with_async.__doc__
    assert without.__doc__


def test_schedules_take_the_same_arguments_without_async() -> None:
    for name in outbox.schedules.__all__:
        with_async, without = getattr(outbox.schedules, name), getattr(outbox.sync.schedules, name)
        assert inspect.iscoroutinefunction(with_async)
        assert not inspect.iscoroutinefunction(without)
        assert list(inspect.signature(without).parameters) == list(inspect.signature(with_async).parameters)
        assert without.__doc__


def test_the_arguments_of_dispatch() -> None:
    parameters = inspect.signature(outbox.dispatch).parameters
    assert list(parameters) == ["job", *OPTIONS]
    assert {parameters[name].default for name in OPTIONS} == {None}
    assert inspect.iscoroutinefunction(outbox.dispatch)
    assert not inspect.iscoroutinefunction(outbox.sync.dispatch)


def test_what_revisions_call() -> None:
    assert set(migrations.__all__) == {"LATEST", "downgrade", "upgrade", "version_of"}
    assert list(inspect.signature(migrations.upgrade).parameters) == ["op", "version", "from_version", "lock_timeout"]
    downgrade = inspect.signature(migrations.downgrade).parameters
    assert list(downgrade) == ["op", "version", "from_version", "discard", "lock_timeout"]


def test_every_error_is_in_the_tree_that_its_module_draws() -> None:
    classes = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert all(issubclass(getattr(errors, name), outbox.OutboxError) for name in classes)
    drawn = errors.__doc__ or ""
    assert {name for name in classes if name not in drawn} == set()
