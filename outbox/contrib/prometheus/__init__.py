"""Metrics for Prometheus: ``pip install 'outbox-queue[prometheus]'``.

A worker with ``--health-port`` serves them at ``/metrics``. An application that dispatches counts its dispatches, and
what its embedded workers do, in its own registry with `instrument`.
"""

from __future__ import annotations

from prometheus_client import REGISTRY, CollectorRegistry

from outbox.client import Outbox
from outbox.contrib.prometheus.job_metrics import JobMetrics
from outbox.contrib.prometheus.process_pages import ProcessPages
from outbox.contrib.prometheus.worker_metrics import WorkerMetrics
from outbox.listeners import listen

__all__ = ["JobMetrics", "ProcessPages", "WorkerMetrics", "instrument"]


def instrument(registry: CollectorRegistry = REGISTRY, *, client: Outbox | None = None) -> JobMetrics:
    """Count what happens to jobs in this process: dispatches, and attempts of workers that start afterwards.

    Without ``client``, it is about the default client, that of `outbox.dispatch`.

    Raises:
        ValueError: ``registry`` has these metrics already.
    """
    metrics = JobMetrics(registry)
    metrics.follow(listen if client is None else client.listen)
    return metrics
