"""How sessions lose what is pending in them, and how they are left."""

from __future__ import annotations

from sqlalchemy import Engine, func, select, text
from sqlalchemy.orm import Session

import outbox
from tests.support.orders import Order

JOBS = outbox.metadata.tables["queue_jobs"]
MODES = ("conditional_savepoint", "rollback_only", "control_fully", "create_savepoint")
"""Of SQLAlchemy's `join_transaction_mode`."""


def counts(engine: Engine) -> tuple[int, int]:
    """Orders and jobs."""
    with engine.connect() as connection:
        orders = connection.scalar(select(func.count()).select_from(Order.__table__))
        jobs = connection.scalar(select(func.count()).select_from(JOBS))
        return int(orders or 0), int(jobs or 0)


def order(session: Session, customer: str = "Ada") -> None:
    session.execute(text("INSERT INTO orders (customer) VALUES (:customer)"), {"customer": customer})


def expunge_all(session: Session) -> None:
    session.expunge_all()


def expire_all(session: Session) -> None:
    session.expire_all()


def close(session: Session) -> None:
    session.close()


def reset(session: Session) -> None:
    session.reset()


def expunge_and_close(session: Session) -> None:
    session.expunge_all()
    session.close()


def leave_open(_: Session) -> None:
    """Its owner forgets it."""


LEAVING = (close, reset, expunge_and_close, leave_open)
