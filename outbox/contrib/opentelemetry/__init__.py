"""Traces and metrics for OpenTelemetry: ``pip install 'outbox-queue[opentelemetry]'``.

Names and attributes are those of the semantic conventions 1.44 for messaging.
"""

from __future__ import annotations

from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider

from outbox.client import Outbox
from outbox.client_state import current_client
from outbox.contrib.opentelemetry.metrics import Metrics
from outbox.contrib.opentelemetry.tracing import Tracing

__all__ = ["instrument"]


def instrument(
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    client: Outbox | None = None,
) -> None:
    """Trace and measure the dispatches of this process, and the attempts of workers that start afterwards.

    Providers left out are the global ones. Without ``client``, it is about the default client, that of
    `outbox.dispatch`. In a worker process, call it in a module that ``OUTBOX_JOBS`` names. A second call for the same
    client changes nothing.
    """
    if client is not None:
        with client.use():
            instrument(tracer_provider=tracer_provider, meter_provider=meter_provider)
        return
    state = current_client()
    if any(isinstance(each, Tracing) for each in state.instruments):
        return
    metrics = Metrics(meter_provider)
    metrics.follow(state)
    state.instruments += (Tracing(tracer_provider, metrics),)
