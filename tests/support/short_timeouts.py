"""Named in OUTBOX_JOBS beside the jobs, it makes a worker give up sooner on handlers that do not stop."""

from __future__ import annotations

import os

from outbox.runtime.execution.executor import Executor
from outbox.runtime.execution.failed_hook import FailedHooks
from outbox.runtime.process.watchdog import Watchdog

CANCEL_STEPS = (0.4, 0.2, 0.2)
HARD_GRACE = 1.0


def install() -> None:
    for service in (Executor, FailedHooks):
        service.__init__.__kwdefaults__["cancel_steps"] = CANCEL_STEPS  # type: ignore[index, misc]
    Watchdog.__init__.__kwdefaults__["hard_grace"] = HARD_GRACE  # type: ignore[index, misc]


if "RUN_LOG" in os.environ:  # in a worker, and not where tests are collected
    install()
