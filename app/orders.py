"""Orders: written together with the job that sends their receipt."""

from pydantic import BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncSession

from app.jobs import SendReceipt
from app.models import Order
from app.payments import authorise
from outbox import JobId, dispatch


class NewOrder(BaseModel):
    """What a customer sends."""

    customer: str = Field(pattern=r"^[^@\s]+@[^@\s]+$", max_length=254, description="e-mail address")
    item: str = Field(min_length=1, max_length=100)
    quantity: int = Field(1, ge=1, le=1000)
    unit_cents: int = Field(ge=1, le=1_000_000)
    card: str = Field(min_length=1, max_length=64, description="token of the card to charge")


async def place(session: AsyncSession, new: NewOrder) -> tuple[Order, JobId]:
    """Write the order and its receipt's job in the caller's transaction, then charge the card.

    The card comes last on purpose: if it is declined, `CardDeclined` leaves the caller's transaction to roll
    back, and the job that was already dispatched goes with the order.
    """
    order = Order(
        customer=new.customer,
        item=new.item,
        quantity=new.quantity,
        total_cents=new.quantity * new.unit_cents,
    )
    session.add(order)
    await session.flush()
    job_id = await dispatch(SendReceipt(order_id=order.id), session=session)
    authorise(new.card, order.total_cents)
    return order, job_id
