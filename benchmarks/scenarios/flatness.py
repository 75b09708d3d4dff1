"""The loads of `benchmarks.flat`, each as a scenario."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from benchmarks.flat.loads import LOADS, Load
from benchmarks.results import Point
from benchmarks.scenario import Sample, Scenario, Site, Variant
from benchmarks.sizes import Sizes
from benchmarks.stores import SQL_SERVERS, Store


async def _measure(site: Site, load: Load) -> Sample:
    costs = await load.costs(site.store, load.quick if site.sizes.small else load.full)
    (_, first), (_, last) = costs[0], costs[-1]
    return Sample(
        {
            "rows, first": first.rows,
            "rows, last": last.rows,
            "rows grow to": last.rows / first.rows,
            "pages grow to": last.pages / first.pages,
            "ms, first": first.milliseconds,
            "ms, last": last.milliseconds,
            "ms grow to": last.milliseconds / first.milliseconds,
        },
        [Point(level, {"rows": cost.rows, "pages": cost.pages, "ms": cost.milliseconds}) for level, cost in costs],
    )


def _variants(_: Store, __: Sizes, load: Load) -> Sequence[Variant]:
    return [Variant("a claim of 100 jobs", partial(_measure, load=load))]


FLATNESS = tuple(
    Scenario(
        load.name,
        f"Flat: {load.title[0].lower()}{load.title[1:]}",
        partial(_variants, load=load),
        stores=SQL_SERVERS,
        once=True,
        axis=load.axis,
    )
    for load in LOADS
)
