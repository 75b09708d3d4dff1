"""Traces of a shop, on the console. OUTBOX_JOBS names this module, so that its workers are traced as well."""

import asyncio

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
from receipts import SendReceipt

import outbox
from outbox.contrib import opentelemetry

provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter()))
trace.set_tracer_provider(provider)
opentelemetry.instrument()


async def main() -> None:
    with trace.get_tracer("shop").start_as_current_span("POST /orders"):
        await outbox.dispatch(SendReceipt(order_id=7))


if __name__ == "__main__":
    asyncio.run(main())
