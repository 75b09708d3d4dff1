"""The deploy after `tests/integration/zoo.py`: the same names, and nothing wrong with the classes any more."""

from __future__ import annotations

from pydantic import ConfigDict

from outbox import Job
from tests.crash.jobs import note

NAMES = (
    "zoo.BadBackoff",
    "zoo.BadHook",
    "zoo.BadHookInThread",
    "zoo.CancelsItself",
    "zoo.Chokes",
    "zoo.Gone",
    "zoo.NeverEnds",
    "zoo.NeverEndsInThread",
    "zoo.Picky",
    "zoo.Raises",
    "zoo.RaisesInThread",
    "zoo.Recurses",
    "zoo.Renumbered",
    "zoo.Yields",
)


class Mended(Job):
    """A base without ``handle`` is no job yet."""

    model_config = ConfigDict(extra="allow")


async def handle(self: Job) -> None:
    note("mended", self)


for name in NAMES:
    type(Mended)(name.replace("zoo.", "Mended"), (Mended,), {"__module__": __name__, "name": name, "handle": handle})
