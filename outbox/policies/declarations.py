"""Which policies a job class declares under the options of a dispatch. Nothing else here knows which there are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Any

from outbox.policies import keys, rate_limits, unique
from outbox.policies.base import Declaration

DECLARE: list[Callable[[type, Any], Declaration | None]] = [unique.declare, keys.declare, rate_limits.declare]
"""For each policy a function of a job class and the options of a dispatch. None: the job does not have it."""

_decisive: Callable[[type], tuple[Any, ...]] = attrgetter(
    *unique.DECISIVE_OPTIONS, *keys.DECISIVE_OPTIONS, *rate_limits.DECISIVE_OPTIONS
)


def declarations(kind: type, options: Any) -> Sequence[Declaration]:
    """
    Raises:
        OutboxError: the options do not go together.
    """
    return [declaration for declare in DECLARE if (declaration := declare(kind, options)) is not None]


def declares_nothing(kind: type) -> bool:
    """Whether a job class, whose definition was checked, has no policy by itself. Asked at every dispatch, it takes a
    tenth of the time of `declarations`."""
    return not any(_decisive(kind)) and not _has_unique_key(kind)


@lru_cache(maxsize=1_000)
def _has_unique_key(kind: type) -> bool:
    return hasattr(kind, unique.KEY_METHOD)
