"""Looks at jobs and queues, and cancels a job in a transaction."""

import asyncio
from datetime import UTC, datetime, timedelta

from receipts import SendReceipt
from shop import Order, Session, engine

import outbox


async def look(job_id: outbox.JobId) -> None:
    job = await outbox.find(job_id)  # a StoredJob, a FailedJob, a FinishedJob, or None
    page = await outbox.jobs(queue="mail", state="retrying", limit=100)
    more = await outbox.jobs(queue="mail", state="retrying", after=page.next)
    for queue in await outbox.counts():
        print(queue.queue, queue.ready, queue.retrying, queue.oldest)
    print(job, len(more.jobs))


async def look_back() -> None:
    points = await outbox.metrics(queue="mail", name="receipts.SendReceipt", since=timedelta(hours=24))
    for point in points:
        print(point.at, point.settled, point.run.percentile(0.95), point.wait.mean)
    for depth in await outbox.depths(queue="mail", since=timedelta(days=7)):
        print(depth.at, depth.ready, depth.oldest)


async def change(job_id: outbox.JobId) -> None:
    await outbox.reschedule(job_id, at=datetime(2031, 3, 2, 7, tzinfo=UTC))
    await outbox.reschedule(job_id, delay=0)  # now
    await outbox.change(job_id, queue="mail", priority=1)


async def give_orders(job_id: outbox.JobId) -> None:
    await outbox.pause("mail", reason="the provider is down", for_=timedelta(hours=2))
    await outbox.pause(job=SendReceipt, reason="a bug")
    for pause in await outbox.pauses():
        print(pause.kind, pause.name, pause.reason, pause.until)
    await outbox.resume(job=SendReceipt)
    await outbox.resume("mail")
    await outbox.cancel(job_id)


async def cancel(order: Order, job_id: outbox.JobId) -> None:
    async with Session() as session, session.begin():
        await session.delete(order)
        await outbox.cancel(job_id, session=session)  # gone if and only if this commits


async def main() -> None:
    order = Order()
    async with Session() as session, session.begin():
        session.add(order)
        await session.flush()
        job_id = await outbox.dispatch(SendReceipt(order_id=order.id), session=session)
        other_id = await outbox.dispatch(SendReceipt(order_id=order.id), session=session)
    await look(job_id)
    await look_back()
    await change(other_id)
    await give_orders(other_id)
    await cancel(order, job_id)
    print(await outbox.find(job_id) or "the job is gone")
    await outbox.disconnect()
    await engine.dispose()


asyncio.run(main())
