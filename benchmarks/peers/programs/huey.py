"""huey on SQLite: processes, and each commit written to the disk, which is not its default."""

from __future__ import annotations

import sys

from huey import SqliteHuey

from benchmarks.job_counters import mine
from benchmarks.peers.programs.where import url

queue = SqliteHuey("noop", filename=url(), fsync=True, results=False)


@queue.task()
def noop(number: int) -> None:  # noqa: ARG001 - the job's payload
    mine().count()


if __name__ == "__main__":
    # Workers look tasks up by the name of their module, which here is not what it is called there.
    from benchmarks.peers.programs.huey import noop as task

    for each in range(int(sys.argv[1])):
        task(each)
