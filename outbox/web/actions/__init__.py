"""What the dashboard changes: one route for each action, with its right and the fields of its form."""

from __future__ import annotations

from outbox.web.actions import (
    batches,
    classes,
    failures,
    jobs,
    keys,
    operations,
    queues,
    schedules,
    workers,
)
from outbox.web.pages.operations import FILTERS, RIGHTS
from outbox.web.rights import Right
from outbox.web.routes import DashboardRoute, Guard, Show

_CONNECTION = ("connection",)

_ACTIONS: tuple[tuple[str, Show, Right, tuple[str, ...]], ...] = (
    ("/queues/{queue}/pause", queues.pause, Right.PAUSE_QUEUES, _CONNECTION),
    ("/queues/{queue}/resume", queues.resume, Right.PAUSE_QUEUES, _CONNECTION),
    ("/queues/{queue}/clear", queues.clear, Right.CLEAR_QUEUES, _CONNECTION),
    ("/jobs/{id}/cancel", jobs.cancel, Right.CANCEL_JOBS, _CONNECTION),
    ("/jobs/{id}/run", jobs.run_now, Right.CHANGE_JOBS, _CONNECTION),
    ("/jobs/{id}/reschedule", jobs.reschedule, Right.CHANGE_JOBS, ("connection", "when")),
    ("/jobs/{id}/change", jobs.change, Right.CHANGE_JOBS, ("connection", "queue", "priority")),
    ("/failures/retry", failures.retry_all, Right.RETRY_FAILED, failures.FIELDS),
    ("/failures/forget", failures.forget_all, Right.FORGET_FAILED, failures.FIELDS),
    ("/failures/{id}/retry", failures.retry, Right.RETRY_FAILED, _CONNECTION),
    ("/failures/{id}/forget", failures.forget, Right.FORGET_FAILED, _CONNECTION),
    ("/keys/retry", keys.retry, Right.UNBLOCK_KEYS, ("connection", "id")),
    ("/keys/skip", keys.skip, Right.UNBLOCK_KEYS, ("connection", "id")),
    ("/keys/pause", keys.pause, Right.PAUSE_QUEUES, ("connection", "key", "reason", "for")),
    ("/keys/resume", keys.resume, Right.PAUSE_QUEUES, ("connection", "key")),
    ("/limits/set", keys.set_limit, Right.SET_LIMITS, ("connection", "name", "value")),
    ("/limits/reset", keys.reset_limit, Right.SET_LIMITS, ("connection", "name")),
    ("/schedules/pause", schedules.pause, Right.RUN_SCHEDULES, schedules.FIELDS),
    ("/schedules/resume", schedules.resume, Right.RUN_SCHEDULES, schedules.FIELDS),
    ("/schedules/run", schedules.run, Right.RUN_SCHEDULES, schedules.FIELDS),
    ("/schedules/backfill", schedules.backfill, Right.RUN_SCHEDULES, (*schedules.FIELDS, "from", "until")),
    ("/operations/{id}/stop", operations.stop, Right.STOP_OPERATIONS, _CONNECTION),
    ("/batches/{id}/cancel", batches.cancel, Right.MANAGE_BATCHES, _CONNECTION),
    ("/batches/{id}/retry", batches.retry, Right.MANAGE_BATCHES, _CONNECTION),
    ("/classes/pause", classes.pause, Right.PAUSE_QUEUES, classes.PAUSE_FIELDS),
    ("/classes/resume", classes.resume, Right.PAUSE_QUEUES, ("connection", "name")),
    ("/workers/{id}/quiet", workers.quiet, Right.MANAGE_WORKERS, _CONNECTION),
    ("/workers/{id}/resume", workers.resume, Right.MANAGE_WORKERS, _CONNECTION),
    ("/workers/{id}/stop", workers.stop, Right.MANAGE_WORKERS, _CONNECTION),
)


def action_routes(guard: Guard) -> list[DashboardRoute]:
    actions = [DashboardRoute(guard, path, act, right=right, fields=names) for path, act, right, names in _ACTIONS]
    copy = DashboardRoute(
        guard,
        "/jobs/{id}/copy",
        jobs.copy,
        right=Right.DISPATCH,
        fields=jobs.COPY_FIELDS,
        longest=jobs.LONGEST_PAYLOAD,
    )
    dispatch = DashboardRoute(
        guard,
        "/classes/dispatch",
        classes.dispatch_job,
        right=Right.DISPATCH,
        fields=classes.FIELDS,
        longest=jobs.LONGEST_PAYLOAD,
    )
    actions += [
        DashboardRoute(guard, f"/operations/{verb}", operations.starting(verb), right=right, fields=FILTERS)
        for verb, right in RIGHTS.items()
    ]
    return [*actions, copy, dispatch]
