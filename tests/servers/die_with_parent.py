"""Becomes another program, which is killed when the process that started it dies: even by SIGKILL, even in a crash.

    python -I -S die_with_parent.py PARENT_PID PROGRAM [ARGUMENTS...]

A program in between, because Python warns of the other way (code run between fork and exec in a process with threads).
Where the system is not Linux the program starts all the same, and only an orderly end of the tests stops it.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(parent: int, command: list[str]) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before the kernel knew of our wish
            sys.exit(1)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
