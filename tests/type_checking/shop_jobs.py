"""What an application writes. Type checkers must find nothing in it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Generic, TypeVar, assert_type

from pydantic import BaseModel, Field
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker
from sqlalchemy.orm import Session, scoped_session

import outbox
import outbox.sync
from outbox import (
    Backoff,
    Job,
    JobContext,
    JobId,
    OutboxError,
    Settings,
    configure,
    disconnect,
    dispatch,
    dispatch_many,
)


class SendReceipt(Job):
    queue = "mail"
    max_tries = 5
    timeout = 60
    backoff = [1, 5, 30]

    order_id: int

    async def handle(self) -> None:
        assert_type(self.context, JobContext)
        assert_type(self.context.job_id, JobId)
        assert_type(self.context.attempt, int)
        assert_type(self.context.queue, str)
        self.context.release(5)
        self.context.snooze(2.5)
        self.context.fail("no such order")
        self.context.fail(ValueError())
        self.context.delete()

    async def failed(self, error: BaseException) -> None: ...


class SendLateReceipt(SendReceipt):
    name = "shop.SendLateReceipt"
    aliases = ["shop.Late", "shop.Later"]
    connection = "redis"
    priority = 0
    backoff = [60]

    note: str = ""
    tags: list[str] = Field(default_factory=list)


class SendVeryLateReceipt(SendLateReceipt):
    aliases = ["shop.VeryLate"]
    timeout = 90
    days: int = 30

    async def handle(self) -> None:
        await super().handle()


class SqlConnection(Job):
    name = "shop.Plain"
    aliases = ("shop.OldPlain",)
    timeout = 2.5
    backoff = 5

    def handle(self) -> None: ...

    def failed(self, error: BaseException) -> None: ...


class Jittered(Job):
    max_tries = None
    timeout = None
    connection = None
    backoff = Backoff.exponential(1, factor=2, maximum=600)

    async def handle(self) -> int:
        return 1


class Listed(Job):
    backoff = (1, 5.5)

    def handle(self) -> str:
        return ""


class Unpaused(Job):
    backoff = None

    def handle(self, dry: bool = False) -> None: ...


class ByMethod(Job):
    def backoff(self, attempt: int) -> float:
        return 10.0 * attempt

    async def handle(self) -> None: ...


class ByOtherMethod(ByMethod):
    def backoff(self, attempt: int) -> int:
        return attempt


class Annotated(Job):
    queue: ClassVar[str] = "mail"
    priority: ClassVar[int] = 0
    max_tries: ClassVar[int | None] = 3
    timeout: ClassVar[float | None] = 60
    backoff: ClassVar[list[float]] = [1, 2]

    async def handle(self) -> None: ...


Row = TypeVar("Row", bound=BaseModel)


class Import(Job, Generic[Row]):
    rows: list[Row]

    async def handle(self) -> None:
        assert_type(self.rows, list[Row])


class Order(BaseModel):
    id: int


class ImportOrders(Import[Order]):
    """The parametrised class has a name of its own."""


class WithContext(Job):
    """An application's own hook of pydantic beside outbox's private attribute."""

    order_id: int

    def model_post_init(self, context: Any, /) -> None: ...

    def handle(self) -> None: ...


receipt = SendReceipt(order_id=1)
assert_type(receipt, SendReceipt)
assert_type(receipt.order_id, int)
assert_type(receipt.context, JobContext)
assert_type(SendLateReceipt(order_id=1, note="x", tags=[]).tags, list[str])
assert_type(SendVeryLateReceipt(order_id=1).days, int)
assert_type(ImportOrders(rows=[Order(id=1)]).rows, list[Order])
assert_type(ByMethod().backoff(2), float)
assert_type(SendReceipt.queue, str)
assert_type(Annotated.queue, str)
assert_type(SendReceipt.model_validate({"order_id": 1}), SendReceipt)
jobs: list[Job] = [
    SqlConnection(),
    Jittered(),
    Listed(),
    Unpaused(),
    ByOtherMethod(),
    Annotated(),
    WithContext(order_id=1),
]


async def in_async_code(
    new_session: async_sessionmaker[AsyncSession],
    async_scoped: async_scoped_session[AsyncSession],
    sync_session: Session,
    receipts: list[SendReceipt],
) -> None:
    async with new_session() as session, session.begin():
        assert_type(await dispatch(receipt, session=session), JobId)
        assert_type((await dispatch(receipt, session=session, unique=["order_id"], debounce=5)).created, bool)
        assert_type(await dispatch_many(receipts, session=session), list[JobId])
    await dispatch(receipt, session=async_scoped)
    await dispatch(receipt, session=sync_session)
    await dispatch(receipt, connection="redis", queue="slow", delay=30, priority=3, max_tries=3, timeout=300, backoff=4)
    await dispatch(receipt, delay=timedelta(minutes=5), backoff=[1, 60])
    await dispatch(receipt, delay=datetime.now(UTC), backoff=Backoff([1, 5], jitter=0.1))
    await dispatch_many((SendReceipt(order_id=number) for number in range(3)), backoff=4.5, queue="slow")
    await dispatch_many([SendReceipt(order_id=1), SqlConnection()])
    try:
        await dispatch(receipt)
    except OutboxError:
        await disconnect()


def in_sync_code(sync_session: Session, scoped: scoped_session[Session], receipts: list[SendReceipt]) -> None:
    assert_type(outbox.sync.dispatch(receipt, session=sync_session), JobId)
    assert_type(outbox.sync.dispatch_many(receipts, session=scoped), list[JobId])
    outbox.sync.dispatch(receipt, delay=timedelta(minutes=5), backoff=[1, 60], timeout=2.5)
    outbox.sync.disconnect()


configure(database_url="sqlite+aiosqlite:///shop.db")
assert_type(outbox.metadata, MetaData)
assert_type(Settings().database_url, str)
