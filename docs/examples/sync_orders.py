"""Dispatches jobs from sync code. Run it after `alembic upgrade head`."""

from receipts import SendReceipt
from shop import DATABASE_URL, Order
from sqlalchemy import create_engine, make_url
from sqlalchemy.orm import Session

from outbox.sync import dispatch, dispatch_many

DRIVERS = {"sqlite": "sqlite", "mysql": "mysql+pymysql", "mariadb": "mysql+pymysql"}

url = make_url(DATABASE_URL)
engine = create_engine(url.set(drivername=DRIVERS[url.get_backend_name()]))

with Session(engine) as session, session.begin():
    order = Order()
    session.add(order)
    session.flush()
    dispatch(SendReceipt(order_id=order.id), session=session)  # exists if and only if this commits

dispatch_many([SendReceipt(order_id=n) for n in (8, 9)])  # stored when this returns
