"""`POST /orders`: the order and the job for its receipt are one."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from httpx import ASGITransport, AsyncClient

from app import db
from app.api import app
from app.jobs import GenerateReport
from app.orders import NewOrder, place
from app.payments import DECLINED, CardDeclined
from outbox.testing import Fake
from tests.app.rows import Queued, orders, queued

ORDER = {"customer": "ada@example.com", "item": "lamp", "quantity": 2, "unit_cents": 5900, "card": "card-1"}


@pytest.fixture
async def client(shop: str) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(transport=ASGITransport(app), base_url="http://shop") as client:
        yield client


async def test_an_order_and_its_receipts_job_commit_together(client: AsyncClient) -> None:
    response = await client.post("/orders", json=ORDER)

    assert response.status_code == 201
    order_id = response.json()["id"]
    assert [(order.id, order.total_cents) for order in await orders()] == [(order_id, 11800)]
    assert await queued() == [Queued("app.SendReceipt", "mail", {"order_id": order_id})]


async def test_a_declined_card_leaves_neither_order_nor_job(client: AsyncClient) -> None:
    response = await client.post("/orders", json={**ORDER, "card": DECLINED})

    assert response.status_code == 402
    assert "declined for 118.00" in response.json()["detail"]
    assert await orders() == []
    assert await queued() == []


async def test_an_order_that_fails_in_a_savepoint_takes_only_its_own_job(shop: str) -> None:
    async with db.transaction() as session:
        await place(session, NewOrder.model_validate({**ORDER, "item": "kettle"}))
        with pytest.raises(CardDeclined):
            async with session.begin_nested():
                await place(session, NewOrder.model_validate({**ORDER, "card": DECLINED}))
        order, _ = await place(session, NewOrder.model_validate({**ORDER, "item": "notebook"}))

    assert [order.item for order in await orders()] == ["kettle", "notebook"]
    assert [job.payload["order_id"] for job in await queued()] == [(await orders())[0].id, order.id]


@pytest.mark.parametrize("wrong", [{"customer": "nobody"}, {"quantity": 0}, {"unit_cents": -1}, {"item": ""}])
async def test_an_invalid_order_is_refused_before_anything_is_written(
    client: AsyncClient, wrong: dict[str, object]
) -> None:
    response = await client.post("/orders", json={**ORDER, **wrong})

    assert response.status_code == 422
    assert await queued() == []


async def test_an_order_can_be_read_back(client: AsyncClient) -> None:
    placed = (await client.post("/orders", json=ORDER)).json()

    read = (await client.get(f"/orders/{placed['id']}")).json()

    assert read == placed
    assert read["receipted_at"] is None
    assert read["created_at"].endswith(("Z", "+00:00"))


async def test_an_order_that_is_not_there_is_404(client: AsyncClient) -> None:
    assert (await client.get("/orders/4711")).status_code == 404


async def test_a_report_is_dispatched_with_its_delay(client: AsyncClient, outbox_fake: Fake) -> None:
    response = await client.post("/reports", json={"sensor": "roof", "year": 2010, "month": 7, "delay": 3600})

    assert response.status_code == 202
    report = outbox_fake.assert_dispatched(GenerateReport, sensor="roof", year=2010, month=7)
    assert report is not None
    assert (report.queue, report.delay) == ("reports", 3600)


async def test_health_asks_the_database(client: AsyncClient) -> None:
    assert (await client.get("/health")).json() == {"status": "ok"}
