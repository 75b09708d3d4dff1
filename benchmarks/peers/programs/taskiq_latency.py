"""How long an idle taskiq worker takes to start a task, measured as `benchmarks.latency` measures outbox."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time

from taskiq_redis import RedisStreamBroker

from benchmarks.peers.programs.where import url

SOCKET = "OUTBOX_BENCHMARK_SOCKET"

broker = RedisStreamBroker(url(), consumer_id="0")


@broker.task(task_name="arrives")
async def arrives(number: int) -> None:
    entered = time.monotonic()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.sendto(f"{number} {entered!r}".encode(), os.environ[SOCKET])


async def measure(jobs: int, interval: float, warm_up: int) -> None:
    """Print for each job the seconds since ``kiq`` returned, and since it was called."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.bind(os.environ[SOCKET])
        line.setblocking(False)
        await broker.startup()
        for number in range(-warm_up, jobs):
            await asyncio.sleep(interval)
            begun = time.monotonic()
            await arrives.kiq(number)
            ended = time.monotonic()
            _, entered = (await loop.sock_recv(line, 100)).decode().split()
            if number >= 0:
                print(float(entered) - ended, float(entered) - begun)
        await broker.shutdown()


if __name__ == "__main__":
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(measure(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])))
