"""What ``--health-port`` serves: ``/live``, ``/ready`` and ``/metrics`` of a worker, or of all its processes."""

from __future__ import annotations

from http import HTTPStatus
from importlib.util import find_spec

from outbox.events import Events, HealthPortOpened, WorkerStopped
from outbox.runtime.health.of_processes import HealthOfProcess, HealthOfProcesses, MetricsPages
from outbox.runtime.health.server import METRICS_TYPE, NO_METRICS, HealthServer, Response, Routes, verdict
from outbox.runtime.health.worker_health import WorkerHealth
from outbox.runtime.worker import Worker
from outbox.settings import WorkerOptions


def serve_worker(options: WorkerOptions, worker: Worker, health: WorkerHealth, events: Events) -> None:
    """Answer for a process without a supervisor on the port, for another one to its supervisor.

    Raises:
        ConfigurationError: the port cannot be used.
    """
    routes: Routes = {
        "/live": lambda: verdict(health.not_live()),
        "/ready": lambda: verdict(health.not_ready()),
        **_metrics(worker, events),
    }
    supervisor = HealthOfProcess.take()
    if supervisor is not None:
        supervisor.start(routes)
        if (page := routes.get("/metrics/process")) is not None:
            events.listen(lambda _: supervisor.leave(page().body), WorkerStopped)
    else:
        _listen(options, routes, events)


def serve_supervisor(options: WorkerOptions, events: Events) -> HealthOfProcesses:
    """
    Raises:
        ConfigurationError: the port cannot be used.
    """
    health = HealthOfProcesses(options.processes, _pages())
    _listen(options, health.routes(), events)
    return health


def _listen(options: WorkerOptions, routes: Routes, events: Events) -> None:
    if options.health_port is None:
        return
    url = HealthServer(routes, options.health_host, options.health_port).start()
    shown = [path for path in routes if path.count("/") == 1]
    events.emit(HealthPortOpened(url, tuple(shown)))


def _metrics(worker: Worker, events: Events) -> Routes:
    if not _has_prometheus():
        return {"/metrics": lambda: NO_METRICS}
    # Here, because it would take some megabytes of every worker.
    from outbox.contrib.prometheus import WorkerMetrics

    metrics = WorkerMetrics(worker)
    metrics.listen(events)
    return {
        "/metrics": lambda: _page(metrics.of_process() + metrics.of_store()),
        "/metrics/process": lambda: _page(metrics.of_process()),
        "/metrics/store": lambda: _page(metrics.of_store()),
    }


def _page(text: str) -> Response:
    return Response(HTTPStatus.OK, text, METRICS_TYPE)


def _pages() -> MetricsPages | None:
    if not _has_prometheus():
        return None
    from outbox.contrib.prometheus import ProcessPages

    return ProcessPages()


def _has_prometheus() -> bool:
    return find_spec("prometheus_client") is not None
