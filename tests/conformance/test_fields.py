"""A claim brings the fields of a job as they were dispatched, whatever a store makes of JSON."""

from __future__ import annotations

import random
import struct
from collections import OrderedDict
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from pydantic import ConfigDict

from outbox import Job
from outbox.drivers.base import Driver
from outbox.envelope import deserialize, serialize
from outbox.round_trip import model_difference
from tests.conformance.jobs import claim_one


class Everything(Job):
    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    floats: list[float]
    integers: list[int]
    texts: list[str]
    keys: dict[int, float]
    ordered: OrderedDict[str, int]
    anything: Any
    binary: bytes = bytes(range(256))
    moment: datetime = datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
    pause: timedelta = timedelta(days=-1, microseconds=1)
    price: Decimal = Decimal("0.10000000000000000000001")

    def handle(self) -> None:
        """Not run here."""


async def test_the_fields_of_a_job_arrive_as_they_were_dispatched(driver: Driver) -> None:
    some = random.Random(7)
    floats = [struct.unpack("<d", some.randbytes(8))[0] for _ in range(500)]
    job = Everything(
        floats=[0.1 + 0.2, -0.0, 5e-324, 1.7976931348623157e308, 1e22, 1e16, 123456789.0]
        + [number for number in floats if number - number == 0],
        integers=[-(2**63), -(2**53) - 1, 0, 2**53 + 1, 2**64 - 1],
        texts=["", "\x00", "\U0001f600 é", "\\\"'%s:x", "\r\n\t", "\u2028", " x "],
        keys={2: 1.0, 1: 2.0, 10: 3.0},
        ordered=OrderedDict(b=1, aa=2),
        anything={"1": [1.0, 1, True, None, {"": "1.0"}], "b": -0.0, "a": 1e-7},
    )
    serialized = serialize(job)
    await driver.jobs.insert([serialized])
    claim = await claim_one(driver)
    assert model_difference(job, deserialize(claim.name, claim.payload)) is None
