"""The worker profiles drain what the jobs are dispatched to."""

from __future__ import annotations

import importlib
import pkgutil

import app.jobs
import workers
from outbox import WorkerOptions


def profiles() -> dict[str, WorkerOptions]:
    names = [module.name for module in pkgutil.iter_modules(workers.__path__)]
    return {name: importlib.import_module(f"workers.{name}").worker for name in names}


def test_there_is_a_profile_for_each_kind_of_process() -> None:
    assert set(profiles()) == {"default", "mail", "reports"}
    assert all(isinstance(profile, WorkerOptions) for profile in profiles().values())


def test_no_job_is_dispatched_to_a_queue_that_nobody_drains() -> None:
    drained = {queue for profile in profiles().values() for queue in profile.queue}

    assert {getattr(app.jobs, name).queue for name in app.jobs.__all__} <= drained
