"""Where tracing attaches: around the write of a dispatch, and around the handler of each attempt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Protocol

from outbox.envelope import Envelope, Headers, with_headers
from outbox.ids import JobId
from outbox.job import Job


@dataclass(frozen=True, slots=True)
class Dispatched:
    """Jobs of one dispatch for one queue. ``in_session``: a transaction of the application writes them."""

    connection: str
    queue: str
    job_ids: Sequence[JobId]
    names: Sequence[str]
    in_session: bool


@dataclass(frozen=True, slots=True)
class Run:
    """An attempt whose handler is about to be called."""

    job: Job
    queue: str
    connection: str
    headers: Headers
    waited: float | None = None
    """As `JobStarted.waited`."""

    @property
    def trace(self) -> Mapping[str, str]:
        """What instruments gave for the headers when the job was dispatched."""
        return self.headers.trace or {}

    @property
    def continues(self) -> bool:
        """Whether the job follows from its dispatch directly: it is no tick of a schedule, and in no batch."""
        return self.headers.tick is None and self.headers.batch is None


class Instrument(Protocol):
    """A context manager lasts as long as what it is about, and sees what that raises."""

    def dispatching(self, jobs: Dispatched) -> AbstractContextManager[Mapping[str, str]]:
        """Returns what the jobs take along in their headers."""

    def running(self, run: Run) -> AbstractContextManager[None]: ...


@contextmanager
def around_dispatch(
    instruments: Sequence[Instrument], by_connection: dict[str, list[Envelope]], *, in_session: bool
) -> Iterator[None]:
    """The jobs in ``by_connection`` are replaced by those with headers of instruments."""
    with ExitStack() as stack:
        for connection, envelopes in by_connection.items():
            traces: dict[str, dict[str, str]] = {}
            for queue, some in _by_queue(envelopes).items():
                ids, names = [each.id for each in some], [each.name for each in some]
                jobs = Dispatched(connection, queue, ids, names, in_session)
                traces[queue] = {}
                for instrument in instruments:
                    traces[queue] |= stack.enter_context(instrument.dispatching(jobs))
            by_connection[connection] = [
                with_headers(each, trace=traces[each.queue]) if traces[each.queue] else each for each in envelopes
            ]
        yield


def _by_queue(envelopes: Sequence[Envelope]) -> dict[str, list[Envelope]]:
    queues: dict[str, list[Envelope]] = {}
    for envelope in envelopes:
        queues.setdefault(envelope.queue, []).append(envelope)
    return queues
