"""The deploy after `tests/support/failing_jobs.py`: the same names, and nothing wrong with the classes any more."""

from __future__ import annotations

from pydantic import ConfigDict

from outbox import Job
from tests.support.recorded_jobs import note

NAMES = (
    "failing.BadBackoff",
    "failing.BadHook",
    "failing.BadHookInThread",
    "failing.CancelsItself",
    "failing.Chokes",
    "failing.Gone",
    "failing.NeverEnds",
    "failing.NeverEndsInThread",
    "failing.Picky",
    "failing.Raises",
    "failing.RaisesInThread",
    "failing.Recurses",
    "failing.Renumbered",
    "failing.Yields",
)


class Fixed(Job):
    """A base without ``handle`` is no job yet."""

    model_config = ConfigDict(extra="allow")


async def handle(self: Job) -> None:
    note("fixed", self)


for name in NAMES:
    type(Fixed)(name.replace("failing.", "Fixed"), (Fixed,), {"__module__": __name__, "name": name, "handle": handle})
