"""The data that the demonstration feeds in."""

from __future__ import annotations

import hashlib
from itertools import islice
from pathlib import Path

from app import dataset
from app.payments import DECLINED


def test_the_readings_are_all_there_and_each_has_a_key_of_its_own() -> None:
    readings = list(dataset.readings("seattle"))

    assert len(readings) == len({reading.key for reading in readings}) == 8759
    assert {reading.unit for reading in readings} == {"F"}
    assert all(30 < reading.value < 80 for reading in readings)


def test_sensors_measure_in_turn() -> None:
    readings = list(islice(dataset.readings("roof", "cellar"), 4))

    assert [(reading.sensor, reading.measured_at.hour) for reading in readings] == [
        ("roof", 0), ("cellar", 1), ("roof", 2), ("cellar", 3),
    ]  # fmt: skip


def test_the_file_is_the_one_that_its_readme_describes() -> None:
    digest = hashlib.sha256(dataset.TEMPERATURES.read_bytes()).hexdigest()

    assert digest in (Path(dataset.TEMPERATURES).parent / "README.md").read_text()


def test_the_orders_are_the_same_each_time_and_some_cannot_be_paid() -> None:
    orders = list(dataset.orders(100, declined_every=20))

    assert orders == list(dataset.orders(100, declined_every=20))
    assert len({order.customer for order in orders}) == 100
    assert [n for n, order in enumerate(orders, start=1) if order.card == DECLINED] == [20, 40, 60, 80, 100]
