"""An earlier version of outbox from the repository's history, whose workers run beside those of this one."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
BEFORE_POLICIES = "298d0ff04e43d32b18c2523dac80f367cb2b28a3"
"""The last commit whose jobs have no policies."""


def missing(commit: str) -> str | None:
    """Why there is no such version, None where there is one."""
    if _git("cat-file", "-e", f"{commit}^{{commit}}").returncode:
        return f"this copy of the repository lacks the commit {commit}: run `git fetch --unshallow`"
    return None


def unpack(commit: str, directory: Path) -> Mapping[str, str]:
    """Unpack its package; return the environment in which Python imports it.

    :raises RuntimeError: Python would import another one.
    """
    archive = _git("archive", commit, "outbox")
    archive.check_returncode()
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(directory, filter="data")
    environment = {"PYTHONPATH": str(directory)}
    command = [sys.executable, "-c", "import outbox; print(outbox.__file__)"]
    asked = subprocess.run(command, env=environment, cwd=directory, capture_output=True, text=True, check=True)
    if not Path(asked.stdout.strip()).is_relative_to(directory):
        raise RuntimeError(f"Python imports {asked.stdout.strip()} instead of the earlier version")
    return environment


def _git(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    command = ["git", "-c", "safe.directory=*", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
