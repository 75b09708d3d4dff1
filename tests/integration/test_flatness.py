"""A claim costs the same however much there is: rows read by the server's own count, which is the same every time.

The loads are those of `python -m benchmarks --only flat`, at smaller sizes.
"""

from __future__ import annotations

import pytest

from benchmarks.flat.loads import LOADS, Load
from benchmarks.stores import Store

GROWTH = 1.25

# What these two are about are deleted index entries, which no count of rows shows: the engine walks over them alone.
COUNTED = [load for load in LOADS if "snapshot" not in load.name]


@pytest.fixture(
    params=[pytest.param("mysql", marks=pytest.mark.mysql), pytest.param("mariadb", marks=pytest.mark.mariadb)]
)
def backend(request: pytest.FixtureRequest) -> str:
    """The databases that count what they read."""
    return str(request.param)


@pytest.mark.parametrize("load", COUNTED, ids=[load.name for load in COUNTED])
async def test_a_claim_reads_as_many_rows_under_load_as_without(load: Load, backend: str, migrated_url: str) -> None:
    costs = await load.costs(Store(backend, migrated_url, owned=False), load.quick, patient=False)
    rows = {level: cost.rows for level, cost in costs}
    first = rows[load.quick[0]]
    assert max(rows.values()) <= GROWTH * first, f"rows read by a claim of 100 jobs, by {load.axis}: {rows}"
