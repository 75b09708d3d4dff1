"""Where the store is."""

from __future__ import annotations

import os

VARIABLE = "OUTBOX_BENCH_URL"


def url() -> str:
    return os.environ[VARIABLE]
