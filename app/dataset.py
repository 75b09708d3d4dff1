"""The data that the demonstration feeds in: real readings, and orders that are made up."""

import csv
import random
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path

from app.orders import NewOrder
from app.payments import DECLINED
from app.readings import NewReading

TEMPERATURES = Path(__file__).parent / "data" / "seattle-temps.csv"
GOODS = {"kettle": 3490, "lamp": 5900, "notebook": 420, "rucksack": 7450, "thermometer": 1275}


def readings(*sensors: str) -> Iterator[NewReading]:
    """Seattle's 8,759 hourly temperatures, in order of time, from `sensors` in turn; see data/README.md."""
    with TEMPERATURES.open(newline="", encoding="ascii") as file:
        for row, sensor in zip(csv.DictReader(file), cycle(sensors), strict=False):
            measured_at = datetime.strptime(row["date"], "%Y/%m/%d %H:%M").replace(tzinfo=UTC)
            yield NewReading(sensor=sensor, measured_at=measured_at, value=float(row["temp"]), unit="F")


def orders(count: int, *, declined_every: int) -> Iterator[NewOrder]:
    """`count` invented orders, the same at each call; every `declined_every`th has a bad card.

    Each has a customer of its own, so a receipt in the mailbox tells which order it is for.
    """
    chance = random.Random(2010)  # noqa: S311 - a seed, so that each run sells the same
    for number in range(1, count + 1):
        item = chance.choice(list(GOODS))
        yield NewOrder(
            customer=f"customer-{number}@example.com",
            item=item,
            quantity=chance.randint(1, 5),
            unit_cents=GOODS[item],
            card=DECLINED if number % declined_every == 0 else f"card-{number}",
        )
