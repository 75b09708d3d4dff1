"""Puts the failed jobs of one cause back, while workers go on."""

import asyncio

from outbox import bulk, disconnect


async def retry_after_the_outage() -> None:
    found = await bulk.preview("retry", error="SMTPConnectError", since=3_600)
    print(found.count, "failed jobs", [job.id for job in found.sample])
    operation = await bulk.start("retry", error="SMTPConnectError", since=3_600, by="anna")
    operation = await bulk.progress(operation.id)
    print(operation.state, operation.done, "of", operation.total, operation.refused, "refused")


async def move_and_stop() -> None:
    operation = await bulk.start("move", queue="mail", older_than=600, to="slow", by="anna")
    await bulk.stop(operation.id, by="anna")
    for each in await bulk.operations(limit=10):  # the newest first
        print(each.id, each.request.verb, each.state, each.done)


async def main() -> None:
    await retry_after_the_outage()
    await move_and_stop()
    await disconnect()


if __name__ == "__main__":
    asyncio.run(main())
