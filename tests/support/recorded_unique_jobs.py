"""Unique jobs for worker processes under test. Releases of before cannot import them."""

from __future__ import annotations

from tests.support.recorded_jobs import Counted

VERSIONS_OF_A_KEY = 100_000


class Newest(Counted):
    """One at a time for each key, with the newest version: ``number`` is key * VERSIONS_OF_A_KEY + version."""

    max_tries = 50
    """A worker that is killed has begun each of its jobs once more."""
    unique_until = "end"
    on_conflict = "replace"

    def unique_key(self) -> str:
        return str(self.number // VERSIONS_OF_A_KEY)
