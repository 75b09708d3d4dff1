"""Blocks that decorate functions as well."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import wraps
from typing import Any, TypeVar, cast

Function = TypeVar("Function", bound=Callable[..., Any])


class Block(ABC):
    """Around a coroutine function it lasts until that has ended: `contextlib.ContextDecorator` would leave it before
    the first step."""

    @abstractmethod
    def again(self) -> AbstractContextManager[Any]:
        """Another one like it, for each call of what it decorates."""

    def __call__(self, func: Function) -> Function:
        if inspect.iscoroutinefunction(func):

            @wraps(func)
            async def awaited(*arguments: Any, **named: Any) -> Any:
                with self.again():
                    return await func(*arguments, **named)

            return cast("Function", awaited)

        @wraps(func)
        def called(*arguments: Any, **named: Any) -> Any:
            with self.again():
                return func(*arguments, **named)

        return cast("Function", called)
