"""`SendReceipt` against a real SMTP server."""

from __future__ import annotations

import socket

import aiosmtplib
import pytest
from aiosmtpd.smtp import SMTP, Envelope, Session

from app.demo import mailbox as demo
from app.demo.mailbox import Mailbox, serve
from app.jobs import SendReceipt
from app.mail import Refused, message_id
from app.models import Order
from app.settings import settings
from outbox.testing import perform
from tests.app.rows import orders, stored_order


async def test_a_receipt_reaches_the_mailbox_and_marks_the_order(mailbox: Mailbox) -> None:
    order = await stored_order()

    assert (await perform(SendReceipt(order_id=order.id))).completed

    assert mailbox.copies == {message_id(order.id): 1}
    assert mailbox.recipients == {"ada@example.com"}
    assert (await only_order()).receipted_at is not None


async def test_a_second_run_sends_nothing(mailbox: Mailbox) -> None:
    order = await stored_order()

    for _ in range(2):
        assert (await perform(SendReceipt(order_id=order.id))).completed

    assert mailbox.copies == {message_id(order.id): 1}


async def test_a_run_cut_off_after_sending_repeats_the_same_message_id(
    mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = await stored_order()

    async def die(*_: object, **__: object) -> None:
        raise ConnectionError("the worker died here")

    with monkeypatch.context() as patch:
        patch.setattr("app.jobs.send_receipt.update_order", die)
        assert isinstance((await perform(SendReceipt(order_id=order.id))).error, ConnectionError)
    assert (await perform(SendReceipt(order_id=order.id))).completed

    assert mailbox.copies == {message_id(order.id): 2}


async def test_a_busy_server_makes_the_job_fail_so_that_it_is_tried_again(
    mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "BUSY_EVERY", 1)
    order = await stored_order()

    busy = await perform(SendReceipt(order_id=order.id))
    assert busy.retried
    assert isinstance(busy.error, aiosmtplib.SMTPDataError)
    assert (await only_order()).receipted_at is None

    assert (await perform(SendReceipt(order_id=order.id))).completed
    assert (await only_order()).receipted_at is not None


async def test_a_server_that_is_away_makes_the_job_fail(mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch) -> None:
    order = await stored_order()
    with socket.socket() as deaf:  # it keeps others from the port, and does not listen
        deaf.bind(("127.0.0.1", 0))
        monkeypatch.setenv("APP_SMTP_PORT", str(deaf.getsockname()[1]))
        settings.cache_clear()
        away = await perform(SendReceipt(order_id=order.id))
    assert away.retried
    assert isinstance(away.error, aiosmtplib.SMTPConnectError | OSError)


class NoSuchUser:
    """A server that knows none of the recipients."""

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        return "550 5.1.1 no such user here"


async def test_an_address_refused_for_good_is_not_tried_again(shop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    order = await stored_order()

    async with serve(NoSuchUser()) as port:
        monkeypatch.setenv("APP_SMTP_PORT", str(port))
        settings.cache_clear()
        ended = await perform(SendReceipt(order_id=order.id))

    assert ended.failed
    assert isinstance(ended.error, Refused)
    assert "no such user" in str(ended.error)


async def test_the_order_tells_why_there_is_no_receipt(shop: str) -> None:
    order = await stored_order()

    await SendReceipt(order_id=order.id).failed(Refused("no such user" + "!" * 500))

    problem = (await only_order()).receipt_problem
    assert problem is not None
    assert problem.startswith("no such user!")
    assert len(problem) == 200


async def test_an_order_that_is_gone_sends_nothing(mailbox: Mailbox) -> None:
    assert (await perform(SendReceipt(order_id=4711))).completed

    assert not mailbox.copies


async def only_order() -> Order:
    (order,) = await orders()
    return order
