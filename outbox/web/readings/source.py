"""Where readings come from, and what of them is shared."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec, TypeVar

from outbox.web.stores import WebStores

T = TypeVar("T")
P = ParamSpec("P")
S = TypeVar("S", bound="Subject")


@dataclass(frozen=True, slots=True)
class Source:
    """``shared`` keeps what was read until it is cleared. Without it everything is read anew."""

    stores: WebStores
    shared: dict[Any, asyncio.Future[Any]] | None = None


class Subject:
    """Reads one subject from all connections of the dashboard, or from the one that a page names."""

    def __init__(self, source: Source) -> None:
        self.source = source

    @property
    def stores(self) -> WebStores:
        return self.source.stores


Read = Callable[Concatenate[S, P], Coroutine[Any, Any, T]]


def once(method: Read[S, P, T]) -> Read[S, P, T]:
    """Where readings are shared, read what was not read yet."""

    async def read(self: S, /, *arguments: P.args, **named: P.kwargs) -> T:
        shared = self.source.shared
        if shared is None:
            return await method(self, *arguments, **named)
        key = (method.__qualname__, arguments, tuple(named.items()))
        task = shared.get(key)
        if task is None:
            task = shared[key] = asyncio.ensure_future(method(self, *arguments, **named))
        return await asyncio.shield(task)

    return read
