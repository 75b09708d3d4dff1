"""The pages, and the rights that they demand."""

from __future__ import annotations

from outbox.web import events
from outbox.web.actions.classes import show_form
from outbox.web.actions.jobs import show_copy
from outbox.web.pages import (
    batches,
    classes,
    failures,
    health,
    jobs,
    keys,
    operations,
    overview,
    queues,
    schedules,
    workers,
)
from outbox.web.rights import Right
from outbox.web.routes import DashboardRoute, Guard, Show

_PAGES: tuple[tuple[str, Show, tuple[str, ...]], ...] = (
    ("/", overview.show, ()),
    ("/queues", queues.show_all, ()),
    ("/queues/{queue}", queues.show_one, ("connection",)),
    ("/jobs", jobs.show_all, jobs.FILTERS),
    ("/jobs/{id}", jobs.show_one, ()),
    ("/classes", classes.show_all, ()),
    ("/classes/one", classes.show_one, ("connection", "name")),
    ("/failures", failures.show_groups, failures.GROUP_FILTERS),
    ("/failures/jobs", failures.show_jobs, failures.FILTERS),
    ("/workers", workers.show_all, ()),
    ("/schedules", schedules.show_all, ()),
    ("/schedules/one", schedules.show_one, ("connection", "name")),
    ("/keys", keys.show_all, keys.PARAMETERS),
    ("/batches", batches.show_all, ("limit",)),
    ("/batches/{id}", batches.show_one, ("connection",)),
    ("/operations", operations.show_all, operations.PARAMETERS),
    ("/operations/new", operations.show_new, ("verb", *operations.FILTERS)),
    ("/health", health.show, ()),
    ("/live", events.listen, events.PARAMETERS),
)


def page_routes(guard: Guard) -> list[DashboardRoute]:
    pages = [DashboardRoute(guard, path, show, right=Right.SEE, parameters=names) for path, show, names in _PAGES]
    copy = DashboardRoute(guard, "/jobs/{id}/copy", show_copy, right=Right.DISPATCH)
    form = DashboardRoute(
        guard, "/classes/dispatch", show_form, right=Right.DISPATCH, parameters=("connection", "name")
    )
    return [*pages, copy, form]
