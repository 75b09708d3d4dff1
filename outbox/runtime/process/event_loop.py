"""The event loop: uvloop where it is installed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

try:
    import uvloop
except ImportError:
    _Loop: Any = asyncio.SelectorEventLoop
else:
    _Loop = uvloop.Loop

new_loop: Callable[[], asyncio.AbstractEventLoop] = _Loop

Report = Callable[[str, str], None]
"""Told what code of a job did, and what was done about it."""

_IGNORED = "it was ignored"


class WorkerLoop(_Loop):  # type: ignore[misc]
    """The loop on which jobs run. What would end or change it for all of them is reported and ignored.

    So it is from `guard` until the worker's main task is done. Before and after, it is an ordinary loop.
    """

    _main: asyncio.Task[Any] | None = None
    _report: Report | None = None
    _signals: Collection[int] = ()
    _executor_of_jobs: Executor | None = None

    def guard(self, main: asyncio.Task[Any], report: Report, signals: Collection[int]) -> None:
        """``signals`` are those whose handlers nothing on the loop may change."""
        self._main, self._report, self._signals = main, report, signals

    @property
    def report(self) -> Report | None:
        """None while the loop is an ordinary one."""
        return None if self._main is None or self._main.done() else self._report

    def stop(self) -> None:
        if (report := self.report) is None:
            super().stop()
        else:
            report("stopped the event loop", _IGNORED)

    def set_task_factory(self, factory: Any) -> None:
        if (report := self.report) is None:
            super().set_task_factory(factory)
        else:
            report("set a task factory", _IGNORED)

    async def shutdown_default_executor(self, *arguments: Any, **options: Any) -> None:
        if (report := self.report) is None:
            await super().shutdown_default_executor(*arguments, **options)
        else:
            report("shut down the default executor", _IGNORED)

    async def shutdown_asyncgens(self) -> None:
        if (report := self.report) is None:
            await super().shutdown_asyncgens()
        else:
            report("shut down all asynchronous generators", _IGNORED)

    def set_default_executor(self, executor: Any) -> None:
        super().set_default_executor(executor)
        self._executor_of_jobs = executor

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:
        mine = self._executor_of_jobs
        if executor is None and (report := self.report) is not None and getattr(mine, "_shutdown", False):
            self.set_default_executor(ThreadPoolExecutor(thread_name_prefix="asyncio"))
            report("shut down the default executor", "there is a new one")
        return super().run_in_executor(executor, func, *args)

    def add_signal_handler(self, sig: int, callback: Any, *args: Any) -> None:
        if (report := self.report) is not None and sig in self._signals:
            report(f"set a handler for signal {int(sig)}", _IGNORED)
        else:
            super().add_signal_handler(sig, callback, *args)

    def remove_signal_handler(self, sig: int) -> bool:
        if (report := self.report) is not None and sig in self._signals:
            report(f"removed the handler of signal {int(sig)}", _IGNORED)
            return False
        return bool(super().remove_signal_handler(sig))
