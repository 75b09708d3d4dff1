"""What a supervisor under test starts instead of workers: ``python children.py BEHAVIOUR LOG``, one line per start."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path


def main() -> None:
    behaviour, log = sys.argv[1], Path(sys.argv[2])
    index, _, descriptor = os.environ["OUTBOX_SUPERVISED"].partition(":")
    stop: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: stop.append(number))
    with log.open("a", encoding="utf-8") as file:
        file.write(f"{index} {os.getpid()} {os.getppid()}\n")
    if behaviour.startswith("exit "):
        # The first process of each index does as it is told; its successors stay.
        starts = sum(line.startswith(f"{index} ") for line in log.read_text(encoding="utf-8").splitlines())
        if starts == 1 or behaviour.endswith(" always"):
            sys.exit(int(behaviour.split()[1]))
    os.set_blocking(int(descriptor), False)
    while not stop:
        try:
            if os.read(int(descriptor), 1) == b"":
                break  # the supervisor is gone
        except BlockingIOError:
            time.sleep(0.01)
    sys.exit(0)


main()
