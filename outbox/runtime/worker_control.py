"""What signals and operators ask of a worker: to stop, to claim nothing for a while, to go on."""

from __future__ import annotations

from collections.abc import Callable

from outbox.drivers.values import WorkerOrder, WorkerState
from outbox.events import Events, WorkerPaused, WorkerResumed
from outbox.runtime.process.exit_codes import Reason
from outbox.runtime.process.pause_request import PauseRequest
from outbox.runtime.process.stop_request import StopRequest
from outbox.runtime.slots import Slots


class WorkerControl:
    """``wake_claimers`` has those that wait look at ``pause`` again."""

    def __init__(self, name: str, slots: Slots, events: Events, wake_claimers: Callable[[], None]) -> None:
        self.stop = StopRequest()
        self.pause = PauseRequest()
        self._name = name
        self._slots = slots
        self._events = events
        self._wake_claimers = wake_claimers

    def pause_claiming(self) -> None:
        """Claim nothing until `resume_claiming`. Made to be called by a signal handler."""
        self.pause.begin()
        self._events.emit(WorkerPaused(self._name, self._slots.running))
        self._wake_claimers()

    def resume_claiming(self) -> None:
        self.pause.end()
        self._events.emit(WorkerResumed(self._name))
        self._wake_claimers()

    def obey(self, order: WorkerOrder) -> None:
        """Do what an operator asks of this process."""
        if order is WorkerOrder.STOP:
            self.stop.request(Reason.SIGNAL)
        elif order is WorkerOrder.QUIET and not self.pause.active:
            self.pause_claiming()
        elif order is WorkerOrder.RESUME and self.pause.active:
            self.resume_claiming()

    @property
    def state(self) -> WorkerState:
        if self.stop.reason is not None:
            return WorkerState.STOPPING
        return WorkerState.QUIET if self.pause.active else WorkerState.WORKING
