"""The shop's HTTP interface. `uvicorn app.api:app` runs it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Annotated

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import text

from app import db
from app.jobs import GenerateReport
from app.models import Order
from app.orders import NewOrder, place
from app.payments import CardDeclined
from outbox import disconnect, dispatch


class PlacedOrder(BaseModel):
    """An order as the customer sees it."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    customer: str
    item: str
    quantity: int
    total_cents: int
    created_at: datetime
    receipted_at: datetime | None
    receipt_problem: str | None


class WantedReport(BaseModel):
    """Which month of which sensor, and how long from now (seconds) the report may start."""

    sensor: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")
    year: int = Field(ge=1900, le=9998)
    month: int = Field(ge=1, le=12)
    delay: Annotated[float, Field(ge=0, le=7 * 86400)] = 60


class Accepted(BaseModel):
    """Something will be done; this is the job that does it."""

    job_id: str


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    yield
    await db.dispose()
    await disconnect()


app = FastAPI(title="Corner Shop", lifespan=lifespan)


@app.post("/orders", status_code=201)
async def post_order(new: NewOrder) -> PlacedOrder:
    """Place an order. Its receipt is sent if and only if the order is there afterwards."""
    try:
        async with db.transaction() as session:
            order, _ = await place(session, new)
    except CardDeclined as error:
        raise HTTPException(402, str(error)) from error
    return PlacedOrder.model_validate(order)


@app.get("/orders/{order_id}")
async def get_order(order_id: int) -> PlacedOrder:
    async with db.snapshot() as session:
        order = await session.get(Order, order_id)
    if order is None:
        raise HTTPException(404, f"there is no order {order_id}")
    return PlacedOrder.model_validate(order)


@app.post("/reports", status_code=202)
async def post_report(wanted: WantedReport) -> Accepted:
    """Ask for a chart of a month. There is nothing else to write, so the job has its own transaction."""
    job = GenerateReport(sensor=wanted.sensor, year=wanted.year, month=wanted.month)
    return Accepted(job_id=str(await dispatch(job, delay=timedelta(seconds=wanted.delay))))


@app.get("/health")
async def health() -> dict[str, str]:
    """200 while the database answers; a load balancer's question, so it says no more than that."""
    async with db.snapshot() as session:
        await session.execute(text("SELECT 1"))
    return {"status": "ok"}
