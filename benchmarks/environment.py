"""The settings of whoever runs a benchmark must not become those of what is measured."""

from __future__ import annotations

import os

_KEPT = ("OUTBOX_TEST_", "OUTBOX_MYSQL9_DIR")
_SETTINGS = ("DATABASE_URL", "REDIS_URL", "QUEUE_CONNECTION")


def forget_settings() -> None:
    for name in list(os.environ):
        if name in _SETTINGS or (name.startswith("OUTBOX_") and not name.startswith(_KEPT)):
            del os.environ[name]
