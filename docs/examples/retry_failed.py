"""Retries every failed job."""

import asyncio

from outbox import Settings
from outbox.connections import open_driver


async def retry_everything() -> int:
    settings = Settings.load()
    driver = open_driver(settings, settings.connection)
    try:
        return await driver.retry_all()
    finally:
        await driver.close()


if __name__ == "__main__":
    print(asyncio.run(retry_everything()), "jobs will run again")
