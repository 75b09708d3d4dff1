"""A web application that counts its dispatches for Prometheus: `uvicorn metrics_app:app`."""

from fastapi import FastAPI
from prometheus_client import make_asgi_app
from receipts import SendReceipt

import outbox
from outbox.contrib import prometheus

prometheus.instrument()

app = FastAPI()
app.mount("/metrics", make_asgi_app())


@app.post("/receipts/{order_id}")
async def send_receipt(order_id: int) -> str:
    return str(await outbox.dispatch(SendReceipt(order_id=order_id)))
