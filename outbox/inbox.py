"""The inbox: a message that is delivered more than once is taken once.

Brokers deliver a message again when they have not seen it acknowledged. A row of the message commits with what its
consumer does, so that the consumer knows the message when it comes again.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Unpack

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, SessionTransaction

from outbox.client_state import current_settings
from outbox.dispatch import AnySession, serialize_all, stage_in, sync_session, with_options
from outbox.drivers.database.jobs.staging import ask, give_up
from outbox.drivers.database.received_messages import take
from outbox.errors import SessionUnusable
from outbox.ids import JobId
from outbox.job import Job
from outbox.options import DispatchOptions
from outbox.policies.inbox import MessageId, message_key


class inbox:  # noqa: N801 - a function to its users, as `contextlib.suppress` is
    """Receive a message in the transaction of ``session``: ``async with inbox(session, "17", source="mqtt") as fresh``.

    ``fresh`` is whether no transaction that has committed received the message before. The message counts as received
    when the session's transaction commits. A second consumer of the message waits at the start of the block until the
    first one's transaction has ended: as long as the server lets transactions wait for locks (50 s by default).

    ``message_id`` is what the sender calls the message: text, bytes, an int or a UUID. Ids of two sources are
    different. ``source`` is 1 to 64 visible ASCII characters. A message is known for ``OUTBOX_INBOX_KEEP`` seconds,
    default 7 days.

    An exception that leaves the block of a fresh message rolls the transaction back, as a failed flush does. With a
    sync ``Session`` it is ``with inbox(…)``.

    Raises:
        InvalidOption: the id or the source is of a wrong type or out of its range.
        SessionUnusable: there is no session, or it cannot carry a message; the text says why.
        TablesMissing: the database lacks tables of version 3.
    """

    def __init__(self, session: AnySession, message_id: MessageId, *, source: str = "default") -> None:
        if session is None:
            raise SessionUnusable(
                "the inbox needs a session: give it the AsyncSession or Session in which the consumer writes, whose "
                "commit receives the message"
            )
        self._given = session() if isinstance(session, async_scoped_session) else session
        self._session = sync_session(self._given)
        self._key = message_key(message_id, source)
        self._transaction: SessionTransaction | None = None

    async def __aenter__(self) -> bool:
        if isinstance(self._given, AsyncSession):
            return await self._given.run_sync(self._receive)
        return self._receive(self._session)

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None or self._transaction is None:
            return
        if isinstance(self._given, AsyncSession):
            await self._given.run_sync(self._give_up)
        else:
            self._give_up(self._session)

    def __enter__(self) -> bool:
        return self._receive(self._session)

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None and self._transaction is not None:
            self._give_up(self._session)

    def _receive(self, session: Session) -> bool:
        keep_for = current_settings().inbox_keep
        instead = "the inbox asks the database: use `async with inbox(…)`"
        fresh = ask(session, lambda dialect: take(dialect, self._key, keep_for), instead)
        if fresh:
            self._transaction = session.get_transaction()
        return fresh

    def _give_up(self, session: Session) -> None:
        """Else an application that goes on after the exception would commit that the message was received."""
        if session.get_transaction() is self._transaction and session.is_active:
            # What led to the exception may be that the server is gone, and then there is nothing to undo.
            with suppress(DBAPIError):
                give_up(session)


@with_options
async def receive(
    session: AnySession, message_id: MessageId, job: Job, *, source: str = "default", **options: Unpack[DispatchOptions]
) -> JobId | None:
    """Dispatch ``job`` for a message, in the transaction of ``session``; None if the message was received before.

    `inbox` describes the message, and `outbox.dispatch` the options. The id of the job is what that returns.

    Raises:
        InvalidJob, InvalidOption, PayloadTooLarge, SessionUnusable: nothing was written.
        DuplicateJob, ConfigurationError: as `outbox.dispatch`; the transaction is rolled back.
    """
    serialized = serialize_all([job], options, takes_keys=True)
    async with inbox(session, message_id, source=source) as fresh:
        if not fresh:
            return None
        await stage_in(session, serialized)
    return serialized.ids[0]
