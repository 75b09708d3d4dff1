"""Which version of outbox this process has."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version


@cache
def installed_version() -> str | None:
    """None where outbox was not installed as a distribution."""
    try:
        return version("outbox-queue")
    except PackageNotFoundError:
        return None
