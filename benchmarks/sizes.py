"""How much is measured: for figures, or only to see that everything works."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sizes:
    dispatches: int
    """One by one, each in a transaction of its own."""
    transactions: int
    """Business transactions with and without a dispatch."""
    calls: int
    """Dispatches whose processor time is measured."""
    bulk: int
    """Jobs given to ``dispatch_many`` in all."""
    drain: int
    """Jobs in the queue when workers begin."""
    latencies: int
    """Jobs whose way to an idle worker is measured."""
    mixed_seconds: float
    """How long jobs are dispatched while workers drain."""
    idle_seconds: float
    """How long an idle worker is watched."""
    overload_seconds: float
    """How long a backlog grows."""
    distant: int
    """Jobs in the queue when a worker far from its database begins."""
    small: bool
    """Whether curves end at small levels."""


FULL = Sizes(
    dispatches=3_000,
    transactions=1_500,
    calls=5_000,
    bulk=100_000,
    drain=100_000,
    latencies=400,
    mixed_seconds=20.0,
    idle_seconds=10.0,
    overload_seconds=600.0,
    distant=10_000,
    small=False,
)

QUICK = Sizes(
    dispatches=200,
    transactions=100,
    calls=500,
    bulk=5_000,
    drain=5_000,
    latencies=40,
    mixed_seconds=3.0,
    idle_seconds=2.0,
    overload_seconds=8.0,
    distant=2_000,
    small=True,
)
