"""E-mail: what a receipt says, and how it leaves."""

from email.message import EmailMessage
from email.utils import format_datetime

import aiosmtplib

from app.models import Order
from app.settings import settings
from outbox import RateLimit

server = RateLimit("mail-server", "200/s", burst=200)
"""What the mail server takes of all workers together."""


class Refused(Exception):
    """The mail server will not take this message, now or later (an SMTP reply of 500 or more)."""


def receipt(order: Order) -> EmailMessage:
    """The receipt for `order`, the same to the last header however often it is made."""
    message = EmailMessage()
    message["From"] = settings().mail_from
    message["To"] = order.customer
    message["Subject"] = f"Your receipt for order {order.id}"
    message["Date"] = format_datetime(order.created_at)
    message["Message-ID"] = message_id(order.id)
    message.set_content(
        f"Thank you for your order.\n\n"
        f"{order.quantity} x {order.item}: {order.total_cents // 100}.{order.total_cents % 100:02}\n"
    )
    return message


def message_id(order_id: int) -> str:
    """One order, one Message-ID: that is how a second copy is recognised."""
    return f"<order-{order_id}.receipt@{settings().mail_domain}>"


async def send(message: EmailMessage) -> None:
    """Hand `message` to the mail server.

    Raises `Refused` if that can never work, and aiosmtplib's or the network's own error if it may
    work later (server away, greylisting, mailbox full).
    """
    config = settings()
    try:
        await aiosmtplib.send(
            message,
            hostname=config.smtp_host,
            port=config.smtp_port,
            timeout=config.smtp_timeout,
        )
    except aiosmtplib.SMTPRecipientsRefused as error:
        if all(one.code >= 500 for one in error.recipients):
            raise Refused(str(error.recipients[0])) from error
        raise
    except aiosmtplib.SMTPResponseException as error:
        if error.code >= 500:
            raise Refused(str(error)) from error
        raise
