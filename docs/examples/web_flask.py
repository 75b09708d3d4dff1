"""Flask with Flask-SQLAlchemy: `outbox.sync` in its session. `flask --app web_flask run`"""

from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from receipts import SendReceipt
from shop import DATABASE_URL, Base, Order
from sqlalchemy import make_url

from outbox.sync import dispatch

DRIVERS = {"sqlite": "sqlite", "mysql": "mysql+pymysql", "mariadb": "mysql+pymysql"}

app = Flask(__name__)
url = make_url(DATABASE_URL)
app.config["SQLALCHEMY_DATABASE_URI"] = url.set(drivername=DRIVERS[url.get_backend_name()])
db = SQLAlchemy(app, model_class=Base)


@app.post("/orders")
def place_order() -> str:
    order = Order()
    db.session.add(order)
    db.session.flush()
    dispatch(SendReceipt(order_id=order.id), session=db.session)
    db.session.commit()
    return str(order.id)
