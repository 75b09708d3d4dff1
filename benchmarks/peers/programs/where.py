"""Where the store is, and which keys jobs have."""

from __future__ import annotations

import os

VARIABLE = "OUTBOX_BENCH_URL"
KEYS = 1_000
LIMIT = 10
"""Jobs of a key that run at once, where keys have a limit."""


def url() -> str:
    return os.environ[VARIABLE]
