"""Which policies a job class declares under the options of a dispatch. Nothing else here knows which there are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from outbox.policies import keys, rate_limits, unique
from outbox.policies.base import Declaration

DECLARE: list[Callable[[type, Any], Declaration | None]] = [unique.declare, keys.declare, rate_limits.declare]
"""For each policy a function of a job class and the options of a dispatch. None: the job does not have it."""


def declarations(kind: type, options: Any) -> Sequence[Declaration]:
    """
    Raises:
        OutboxError: the options do not go together.
    """
    return [declaration for declare in DECLARE if (declaration := declare(kind, options)) is not None]
