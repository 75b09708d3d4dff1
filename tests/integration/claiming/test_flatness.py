"""A claim costs the same however much there is: rows read by the server's own count, which is the same every time.

The loads are those of `python -m benchmarks --only flat`, at smaller sizes. All the while the server thinks that the
table is empty: no plan may depend on statistics that somebody has yet to make.
"""

from __future__ import annotations

import pytest

from benchmarks.flat.loads import LOADS, Load
from benchmarks.stores import Store

GROWTH = 1.25

# What these are about are deleted index entries, which no count of rows shows: the engine walks over them by itself.
UNCOUNTED = {"flat-snapshot", "flat-snapshot-arriving"}


def cases(kind: str) -> list[object]:
    mark = getattr(pytest.mark, kind)
    loads = [load for load in LOADS if load.name not in UNCOUNTED]
    return [pytest.param(kind, load, id=f"{kind}-{load.name}", marks=mark) for load in loads]


@pytest.mark.usefixtures("timeless")
@pytest.mark.parametrize(("backend", "load"), [*cases("mysql"), *cases("mariadb")])
async def test_a_claim_reads_as_many_rows_under_load_as_without(backend: str, load: Load, migrated_url: str) -> None:
    costs = await load.costs(Store(backend, migrated_url, owned=False), load.quick, counted=True)
    rows = {level: cost.rows for level, cost in costs}
    first = rows[load.quick[0]]
    assert max(rows.values()) <= GROWTH * first, f"rows read by a claim of 100 jobs, by {load.axis}: {rows}"
