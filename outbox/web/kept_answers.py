"""Answers of the stores that serve several views: kept for a short while, and asked for by one view at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, TypeVar

from outbox import clock
from outbox.errors import BackendUnavailable

T = TypeVar("T")

_MOST = 200
"""Answers that are kept at once: filters make many."""


class KeptAnswers:
    def __init__(self) -> None:
        self._kept: dict[Hashable, tuple[float, Any]] = {}
        """Each with the time until which it is kept."""
        self._until_change: set[Hashable] = set()
        self._asked: dict[Hashable, asyncio.Future[Any]] = {}
        self._changes = 0

    async def get(
        self,
        key: Hashable,
        ask: Callable[[], Awaitable[T]],
        seconds: Callable[[T], float],
        *,
        error_seconds: float = 0.0,
        until_change: bool = False,
    ) -> T:
        """The answer of this key, where it is kept; otherwise what ``ask`` returns, which is kept for ``seconds``, and
        for so many times what it took if that was more than a second. An error is kept for ``error_seconds``.

        Raises:
            BackendUnavailable: the store does not answer, or did not a moment ago.
        """
        until, answer = self._kept.get(key, (0.0, None))
        if clock.now() >= until:
            place = (key, self._changes)
            asked = self._asked.get(place)
            # What a loop that was closed has left is never done.
            if asked is None or asked.get_loop() is not asyncio.get_running_loop():
                asked = asyncio.ensure_future(self._ask(key, ask, seconds, error_seconds, until_change=until_change))
                self._asked[place] = asked
                asked.add_done_callback(lambda _: self._asked.pop(place, None))
            answer = await asyncio.shield(asked)
        if isinstance(answer, BackendUnavailable):
            raise answer
        kept: T = answer
        return kept

    async def _ask(
        self,
        key: Hashable,
        ask: Callable[[], Awaitable[T]],
        seconds: Callable[[T], float],
        error_seconds: float,
        *,
        until_change: bool,
    ) -> T | BackendUnavailable:
        """An error is returned, so that it is no exception that was never retrieved."""
        begun, changes = clock.now(), self._changes
        answer: T | BackendUnavailable
        try:
            answer = await ask()
            kept_for = seconds(answer)
        except BackendUnavailable as error:
            answer, kept_for = error, error_seconds
        if kept_for and not (until_change and changes != self._changes):
            self._keep(key, answer, kept_for * max(1.0, clock.now() - begun))
            if until_change:
                self._until_change.add(key)
        return answer

    def _keep(self, key: Hashable, answer: Any, seconds: float) -> None:
        now = clock.now()
        if len(self._kept) >= _MOST:
            self._kept = {each: kept for each, kept in self._kept.items() if kept[0] > now}
        if len(self._kept) < _MOST:
            self._kept[key] = (now + seconds, answer)

    def forget_after_change(self) -> None:
        """What was kept until a change, and what is being asked for, is not of the time after it."""
        self._changes += 1
        for key in self._until_change:
            self._kept.pop(key, None)
        self._until_change.clear()
