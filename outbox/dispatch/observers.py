"""Who else sees a dispatch: instruments around its write, a test in place of the stores, and listeners after it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from sqlalchemy.orm import Session

from outbox.dispatch.preparing import Serialized
from outbox.events import JobDispatched
from outbox.instruments import around_dispatch

_UNSEEN = nullcontext()


def traced(serialized: Serialized, *, in_session: bool) -> AbstractContextManager[None]:
    """Around the write of the jobs, which take along what instruments give them."""
    instruments = serialized.client.instruments
    return around_dispatch(instruments, serialized.by_connection, in_session=in_session) if instruments else _UNSEEN


def is_recorded(serialized: Serialized, session: Session | None) -> bool:
    """Whether a test takes the jobs, so that they are not written.

    Raises:
        SessionUnusable: the session cannot carry a job.
    """
    recorder = serialized.client.recorder
    if recorder is None:
        return False
    recorder.record(serialized.by_connection, session)
    return True


def tell_listeners(serialized: Serialized, *, in_session: bool) -> None:
    events = serialized.client.events
    if events is None:
        return
    events.emit_all(
        [
            JobDispatched(envelope.id, envelope.name, envelope.queue, connection, in_session)
            for connection, envelopes in serialized.by_connection.items()
            for envelope in envelopes
        ]
    )
    if serialized.whole is not None:
        events.emit(serialized.whole(in_session))
