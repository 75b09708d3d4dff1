"""Keeps several worker processes running."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from types import FrameType
from typing import Protocol

from outbox import clock
from outbox.events import Events, ProcessEnded, ProcessStarted, SignalIgnored
from outbox.runtime.process.exit_codes import ExitCode
from outbox.runtime.process.signals import Signals, woken_by_signals
from outbox.runtime.process.worker_process import HEALTH_DESCRIPTOR, SUPERVISED
from outbox.wakeups.supervisor_fanout import DESCRIPTOR, FanoutServer

QUICK = 10.0
"""A process that lived for fewer seconds than this died quickly, and its successor waits."""

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds that the successor of a process waits, at first and at most."""

_STOP_HARD_WITHIN = 2.0

_HELD_BACK = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)

_WANTS_SUCCESSOR = (ExitCode.RECYCLE, ExitCode.MEMORY)


class ProcessSockets(Protocol):
    """Has a socket with each process."""

    def connect(self, index: int) -> socket.socket:
        """Returns the socket of the process of this number, which is about to be started. The caller closes it."""

    def disconnect(self, index: int) -> None:
        """The process has ended."""


class Supervisor:
    """Starts ``count`` processes and replaces those that die.

    ============================================== ====================================================================
    a process ends                                 what happens
    ============================================== ====================================================================
    0: ``--once``, ``--stop-when-empty``           it is done; when all are, the supervisor ends with 0
    0 without ``ends_by_itself``                   replaced like any other that dies: a job called ``os._exit(0)``
    12, 13: ``--memory``, ``--max-jobs``, …        replaced at once
    2: configuration                               everything stops: the next process would say the same; 2
    anything else, a signal included               replaced; after 0.5 s, 1 s, … 30 s while successors die within 10 s
    ============================================== ====================================================================

    With ``reloads`` it never ends by itself: what is done or misconfigured starts again when the sources change.

    Processes are in process groups of their own, so that a Ctrl-C at the terminal reaches them once, through here.
    They see the end of a pipe when the supervisor is gone, and stop.
    """

    def __init__(
        self,
        command: Sequence[str],
        count: int,
        events: Events,
        *,
        reloads: bool = False,
        fanout: FanoutServer | None = None,
        health: ProcessSockets | None = None,
        signals: Signals | None = None,
        ends_by_itself: bool = True,
    ) -> None:
        self._signals = signals
        self._ends_by_itself = ends_by_itself
        self._command = command
        self._count = count
        self._events = events
        self._reloads = reloads
        self._fanout = fanout
        self._health = health
        self._stopping = asyncio.Event()
        self._reload = asyncio.Event()
        self._code = ExitCode.OK
        self._processes: dict[int, Process] = {}
        self._alive: tuple[int, int] | None = None

    async def run(self) -> int:
        """Until every process has ended for good. Returns the exit code."""
        loop = asyncio.get_running_loop()
        self._listen(loop)
        self._alive = os.pipe()
        try:
            with woken_by_signals(loop):
                await asyncio.gather(*(self._keep(index) for index in range(1, self._count + 1)))
        finally:
            if self._fanout is not None:
                await self._fanout.stop()
            for descriptor in self._alive:
                os.close(descriptor)
        return self._code

    def stop(self) -> None:
        """Ask every process to stop, and replace none."""
        self._stopping.set()
        self._signal(signal.SIGTERM)

    def restart(self) -> None:
        """Ask every process to stop, and replace each one when it has."""
        self._reload.set()
        self._reload = asyncio.Event()
        self._signal(signal.SIGTERM)

    def _signal(self, number: signal.Signals) -> None:
        for process in self._processes.values():
            with suppress(ProcessLookupError):
                process.send_signal(number)

    def _listen(self, loop: asyncio.AbstractEventLoop) -> None:
        """Pass signals on to the processes, which are in groups of their own."""
        signals = self._signals
        if signals is None:
            signals = self._signals = Signals()
            signals.install()
        signals.on_stop = lambda: loop.call_soon_threadsafe(self.stop)
        signals.on_second = lambda _: self._stop_hard()
        signals.on_pause = lambda: self._signal(signal.SIGUSR2)
        signals.on_resume = lambda: self._signal(signal.SIGCONT)
        signals.on_harmless = lambda name, reason: self._events.emit(SignalIgnored(name, reason))
        if signal.getsignal(signal.SIGTSTP) == signal.SIG_DFL:
            signal.signal(signal.SIGTSTP, self._suspend)

    def _suspend(self, _number: int, _frame: FrameType | None) -> None:
        """Ctrl-Z at the terminal: stop the processes, then this one. What follows runs after CONT."""
        self._signal(signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)
        self._signal(signal.SIGCONT)

    def _stop_hard(self) -> None:
        """Let each process say which jobs it leaves behind, and end; then end those that do not."""
        self._signal(signal.SIGTERM)
        if not self._stopping.is_set():
            # The event loop has not heard of the first signal yet, and neither have they.
            self._signal(signal.SIGINT)
        end = clock.now() + _STOP_HARD_WITHIN
        while clock.now() < end and any(_is_alive(process.pid) for process in self._processes.values()):
            time.sleep(0.02)
        self._signal(signal.SIGKILL)

    async def _keep(self, index: int) -> None:
        pause = FIRST_PAUSE
        while not self._stopping.is_set():
            reload = self._reload
            begun = clock.now()
            process = await self._spawn(index)
            code = await process.wait()
            del self._processes[index]
            if self._health is not None:
                self._health.disconnect(index)
            if clock.now() - begun >= QUICK:
                pause = FIRST_PAUSE
            restart_in = 0.0 if reload.is_set() else self._restart_in(code, pause)
            if self._stopping.is_set():
                restart_in = None
            self._events.emit(ProcessEnded(index, process.pid, code, restart_in))
            if restart_in is None and (self._stopping.is_set() or not self._reloads):
                return
            if restart_in:
                pause = min(pause * 2, LONGEST_PAUSE)
            await self._sleep(restart_in, reload)

    async def _spawn(self, index: int) -> Process:
        assert self._alive is not None  # noqa: S101 - for the type checker: set by run
        descriptor = self._alive[0]
        paused = self._signals is not None and self._signals.paused
        environment = {**os.environ, SUPERVISED: f"{index}:{descriptor}{':paused' if paused else ''}"}
        descriptors = [descriptor]
        with ExitStack() as theirs:
            if self._fanout is not None:
                fanout = theirs.enter_context(self._fanout.connect())
                environment[DESCRIPTOR] = str(fanout.fileno())
                descriptors.append(fanout.fileno())
            if self._health is not None:
                health = theirs.enter_context(self._health.connect(index))
                environment[HEALTH_DESCRIPTOR] = str(health.fileno())
                descriptors.append(health.fileno())
            # Held back until the process has handlers for them: without, each of them would end it.
            signal.pthread_sigmask(signal.SIG_BLOCK, _HELD_BACK)
            try:
                process = await asyncio.create_subprocess_exec(
                    *self._command, env=environment, stdin=DEVNULL, pass_fds=descriptors, process_group=0
                )
            finally:
                # Not what was before: another process may be starting at the same time.
                signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD_BACK)
        self._processes[index] = process
        self._events.emit(ProcessStarted(index, process.pid))
        if self._stopping.is_set():
            process.send_signal(signal.SIGTERM)
        return process

    def _restart_in(self, code: int, pause: float) -> float | None:
        """Seconds until a process that ended with ``code`` is replaced; None when it is not."""
        if code == ExitCode.OK and self._ends_by_itself:
            return None
        if code == ExitCode.CONFIGURATION:
            if not self._reloads:
                self._code = ExitCode.CONFIGURATION
                self.stop()
            return None
        if code in _WANTS_SUCCESSOR:
            return 0.0
        return pause

    async def _sleep(self, seconds: float | None, reload: asyncio.Event) -> None:
        """Until the time has come, the sources have changed, or everything stops."""
        waits = [asyncio.create_task(event.wait()) for event in (self._stopping, reload)]
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        await asyncio.wait(waits)


def _is_alive(pid: int) -> bool:
    """Without reaping it: that is for the event loop to do."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except ChildProcessError:
        return False


def worker_command(arguments: Sequence[str]) -> list[str]:
    """What starts one worker process with the same arguments."""
    return [sys.executable, "-m", "outbox.work", *arguments]
