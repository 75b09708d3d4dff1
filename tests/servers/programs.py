"""Finds server programs on this machine."""

from __future__ import annotations

import os
import shutil

# Where servers are installed, and where an ordinary user's PATH does not look.
SERVER_DIRECTORIES = ("/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/libexec")


def which(name: str) -> str | None:
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), *SERVER_DIRECTORIES))
    return shutil.which(name, path=path)
