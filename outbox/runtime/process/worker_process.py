"""One worker process, from its event loop to its exit code."""

from __future__ import annotations

import _thread
import asyncio
import gc
import logging
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn, cast

from outbox.events import Events, SignalIgnored
from outbox.open_drivers import disconnect
from outbox.runtime.execution.protected_task import ProtectedTask
from outbox.runtime.process.event_loop import WorkerLoop
from outbox.runtime.process.exit_codes import ExitCode, Reason, end_now, flush_streams
from outbox.runtime.process.process_state import ProcessState
from outbox.runtime.process.signals import Signals, ignore_until_the_end
from outbox.runtime.worker import Ended, Worker

SUPERVISED = "OUTBOX_SUPERVISED"
"""The environment variable in which a supervisor tells its child ``index:descriptor``."""

HEALTH_DESCRIPTOR = "OUTBOX_HEALTH_FD"
"""The environment variable with the descriptor of the socket on which a supervisor asks its child for its health."""

_CLOSE_WITHIN = 5.0

_log = logging.getLogger("outbox.runtime")

_YOUNG_OBJECTS = 10_000
"""How many new objects there may be before the garbage collector looks at them. Python's own 700 are those of some 50
jobs."""


@dataclass(frozen=True, slots=True)
class Supervised:
    """What a worker process knows of the supervisor that started it."""

    index: int
    descriptor: int
    """The reading end of a pipe that is at its end once the supervisor is gone, however it went."""
    paused: bool = False
    """The supervisor was told by USR2 that nothing is to be claimed."""

    @classmethod
    def take(cls) -> Supervised | None:
        """Read it from the environment, and remove it there: processes that a job starts are not supervised."""
        value = os.environ.pop(SUPERVISED, None)
        if value is None:
            return None
        index, descriptor, *paused = value.split(":")
        os.set_inheritable(int(descriptor), False)
        return cls(int(index), int(descriptor), bool(paused))


def run_worker(
    worker: Worker, supervised: Supervised | None, *, signals: Signals, process: ProcessState, events: Events
) -> ExitCode:
    """Run until the worker has ended. What is stuck in it then still runs: end the process.

    Raises:
        ConfigurationError: nothing was started, because a store is not what outbox needs.
    """
    _listen(worker, signals, events)
    if supervised is not None and supervised.paused:
        signals.pause()
    # What was imported stays. Without this the collector would walk over all of it again after every few batches of
    # jobs, which takes a quarter of the worker's time.
    gc.collect()
    gc.freeze()
    # A batch of jobs that run at the same time fits in: what ends in order is gone before the collector looks at it.
    young, *older = gc.get_threshold()
    if 0 < young < _YOUNG_OBJECTS:
        gc.set_threshold(_YOUNG_OBJECTS, *older)
    loop = WorkerLoop()
    asyncio.set_event_loop(loop)
    if supervised is not None:
        _watch(loop, supervised.descriptor, worker)
    stuck = 0
    try:
        ended = run_until_ended(loop, worker, partial(process.guard, loop))
        stuck = ended.stuck
        return ended.reason.exit_code(supervised=supervised is not None)
    finally:
        # A handler that does not end would keep the loop from closing.
        if not stuck:
            _close(loop)


def _listen(worker: Worker, signals: Signals, events: Events) -> None:
    signals.on_second = worker.stopped_hard
    signals.on_pause = worker.control.pause_claiming
    signals.on_resume = worker.control.resume_claiming
    signals.on_harmless = lambda name, reason: events.emit(SignalIgnored(name, reason))
    signals.on_stop = lambda: worker.stop.request(Reason.SIGNAL)
    # The application's modules may have installed their own.
    signals.reinstall()


def run_until_ended(
    loop: asyncio.AbstractEventLoop, worker: Worker, guard: Callable[[asyncio.Task[Any]], object] = lambda _: None
) -> Ended:
    main = ProtectedTask(worker.run(), loop=loop)
    guard(main)
    while True:
        try:
            return cast("Ended", loop.run_until_complete(main))
        except (SystemExit, KeyboardInterrupt):
            if main.done():
                raise
            # From a task that a job had started: asyncio lets these two through, out of the loop.
            _log.exception("a task raised an exception that is meant to end the process; ignored")


def _watch(loop: asyncio.AbstractEventLoop, descriptor: int, worker: Worker) -> None:
    def closed() -> None:
        loop.remove_reader(descriptor)
        worker.stop.request(Reason.ORPHANED)

    loop.add_reader(descriptor, closed)


def _close(loop: asyncio.AbstractEventLoop) -> None:
    """Let go of what jobs have left behind on the loop: tasks, generators, connections."""
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    with suppress(Exception):
        if left:
            loop.run_until_complete(asyncio.wait(left, timeout=_CLOSE_WITHIN))
        loop.run_until_complete(disconnect())
        loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


def leave(code: int) -> NoReturn:
    """End the process in order, but soon: threads that jobs have left behind may not end, and Python waits for them.

    Nor does it wait for a reader of what jobs have printed, as Python would when it ends.
    """
    # Not through `threading`, of which a job may have left little.
    _thread.start_new_thread(_end_later, (code,))
    ignore_until_the_end()
    if not flush_streams():
        end_now(code)
    sys.exit(code)


def _end_later(code: int) -> None:
    time.sleep(_CLOSE_WITHIN)
    end_now(code)
