"""Releases of before, for tests that run them beside this one."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.servers.summary import in_ci

ROOT = Path(__file__).parents[2]


class Release(NamedTuple):
    """``tables`` is the version of its tables."""

    commit: str
    tables: int


BEFORE = (
    Release("37b4a42ba243f75ca727bb31d86ac7c90913a6c9", 1),
    Release("75444a2c09584acce7006d4c1a3effbf6a0a95bd", 2),
    Release("0f42345a377b27099f1a1ac526ec44723e1b9cc2", 3),
)
"""The last commit with each version of the tables. The last one is the release that this one follows."""


def unpack(release: Release, directory: Path) -> Path:
    """The directory from which Python imports the release. It comes from the repository's history."""
    if _git("cat-file", "-e", f"{release.commit}^{{commit}}").returncode:
        _git("fetch", "--quiet", "--depth=1", "origin", release.commit)
    archive = _git("archive", release.commit, "outbox")
    if archive.returncode:
        missing = f"this copy lacks the commit {release.commit}: clone the repository, or run `git fetch --unshallow`"
        if in_ci() and _has_all_history():
            pytest.fail(missing)
        pytest.skip(missing)
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(directory, filter="data")
    return directory


def _has_all_history() -> bool:
    """A source archive has no history, and a shallow clone has little."""
    return _git("rev-parse", "--is-shallow-repository").stdout.strip() == b"false"


def _git(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    # Whoever runs the tests may not be who made the clone.
    command = ["git", "-c", "safe.directory=*", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
