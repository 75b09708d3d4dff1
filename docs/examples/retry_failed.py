"""Puts failed jobs back, and removes old ones."""

import asyncio

import outbox


async def retry_and_tidy() -> None:
    for job in await outbox.failed_jobs(queue="mail", since=3600):  # the latest failure first
        print(job.id, job.failure.type)
    print(await outbox.retry_all(error="SMTPConnectError"), "jobs will run again")
    await outbox.forget_all(older_than=7 * 86_400)


async def main() -> None:
    await retry_and_tidy()
    await outbox.disconnect()


if __name__ == "__main__":
    asyncio.run(main())
