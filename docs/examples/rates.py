"""Rate limits: how often jobs start, in the whole fleet."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from outbox import Job, RateLimit, dispatch_many, limits

mailgun = RateLimit("mailgun", "100/m", burst=20)


def record(line: str) -> None:
    with Path("rates.log").open("a") as log:
        log.write(f"{line}\n")


class SendMail(Job):
    rate = mailgun
    address: str

    async def handle(self) -> None:
        record(f"mail to {self.address}")


class CallApi(Job):
    rate = "5/s"
    burst = 10
    rate_key = "api_key"
    api_key: str

    async def handle(self) -> None:
        record(f"call with {self.api_key}")


@dataclass
class Answer:
    status: int


def call(number: int) -> Answer:
    """The service: it refuses the first call."""
    refused = not Path("refused").exists()
    Path("refused").touch()
    record(f"{'refused' if refused else 'answered'} {number}")
    return Answer(429 if refused else 200)


class CallService(Job):
    rate = "10/s"
    number: int

    def handle(self) -> None:
        answer = call(self.number)
        if answer.status == 429:
            self.context.rate_limited(retry_after=2)


async def send_now(address: str) -> bool:
    return await limits.take("mailgun", 1, timeout=2.0)


async def main() -> None:
    await dispatch_many(SendMail(address=f"{number}@example.org") for number in range(3))
    await dispatch_many(CallApi(api_key=key) for key in ("a", "b"))
    await dispatch_many(CallService(number=number) for number in range(3))
    print("taken" if await send_now("now@example.org") else "too many")


if __name__ == "__main__":
    asyncio.run(main())
