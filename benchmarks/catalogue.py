"""Every scenario, in the order in which they run."""

from __future__ import annotations

from benchmarks.scenario import Scenario
from benchmarks.scenarios.bulk import DISPATCH_MANY
from benchmarks.scenarios.business import BUSINESS
from benchmarks.scenarios.clusters import GALERA, GROUP_REPLICATION
from benchmarks.scenarios.dashboard import DASHBOARD, METRICS
from benchmarks.scenarios.dispatching import DISPATCH, DISPATCH_ONE
from benchmarks.scenarios.distance import SLOW_DATABASE
from benchmarks.scenarios.draining import DRAIN
from benchmarks.scenarios.flatness import FLATNESS
from benchmarks.scenarios.memory import MEMORY
from benchmarks.scenarios.mixed import MIXED
from benchmarks.scenarios.overload import OVERLOAD
from benchmarks.scenarios.policies import POLICIES
from benchmarks.scenarios.scaling import DATABASES, WORKERS
from benchmarks.scenarios.waiting import LATENCY, LATENCY_BUSY

SCENARIOS: tuple[Scenario, ...] = (
    DISPATCH,
    DISPATCH_ONE,
    BUSINESS,
    DISPATCH_MANY,
    DRAIN,
    *POLICIES,
    MIXED,
    LATENCY,
    LATENCY_BUSY,
    MEMORY,
    DASHBOARD,
    METRICS,
    SLOW_DATABASE,
    OVERLOAD,
    WORKERS,
    DATABASES,
    GALERA,
    GROUP_REPLICATION,
    *FLATNESS,
)
