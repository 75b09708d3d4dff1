"""dramatiq on Redis: threads."""

from __future__ import annotations

import sys
import threading

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from benchmarks.job_counters import mine
from benchmarks.peers.programs.where import url

dramatiq.set_broker(RedisBroker(url=url()))
_lock = threading.Lock()


@dramatiq.actor
def noop(number: int) -> None:  # noqa: ARG001 - the job's payload
    with _lock:
        mine().count()


if __name__ == "__main__":
    for each in range(int(sys.argv[1])):
        noop.send(each)
