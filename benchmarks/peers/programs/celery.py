"""Celery on Redis: threads, no results, and acknowledgements after the job: by default a killed worker's are lost."""

from __future__ import annotations

import sys
import threading

from celery import Celery

from benchmarks.job_counters import mine
from benchmarks.peers.programs.where import url

app = Celery("noop", broker=url())
app.conf.task_ignore_result = True
app.conf.task_acks_late = True
_lock = threading.Lock()


@app.task(name="noop")
def noop(number: int) -> None:  # noqa: ARG001 - the job's payload
    with _lock:
        mine().count()


if __name__ == "__main__":
    for each in range(int(sys.argv[1])):
        noop.delay(each)
