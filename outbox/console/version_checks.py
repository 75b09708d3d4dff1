"""Which versions of payloads wait, for `outbox check`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from outbox import registry
from outbox.console.finding import Finding
from outbox.console.formatting import counted
from outbox.drivers.values import StoredJob
from outbox.envelope import Headers
from outbox.errors import InvalidPayload
from outbox.job import Job
from outbox.payload_versions import FIRST, has_path


def check_versions(connection: str, jobs: Sequence[StoredJob]) -> Iterator[Finding]:
    """A finding for each version of a job class that has a ``version``, or has jobs with one."""
    known = registry.registered()
    versions: Counter[tuple[str, int]] = Counter()
    for job in jobs:
        version = _version_of(job.headers)
        if job.name in known and (version is not None or known[job.name].version is not None):
            versions[job.name, version or FIRST] += 1
    for (name, version), number in sorted(versions.items()):
        yield _finding(connection, known[name], name, version, number)


def _finding(connection: str, kind: type[Job], name: str, version: int, number: int) -> Finding:
    newest = kind.version or FIRST
    waiting = f"{counted(number, 'job')} named {name} {'has' if number == 1 else 'have'} version {version}"
    if version > newest:
        return Finding.warning(
            connection,
            f"{waiting}, newer than the code here, which has {newest}: a worker fails them after an hour",
            "deploy the newer code to the workers",
        )
    if not has_path(kind, version):
        return Finding.warning(
            connection,
            f"{waiting}, from which nothing leads to version {newest}: a worker would fail them",
            f"add a function marked @upgrade({version}) to the class",
        )
    return Finding.info(connection, waiting if version == newest else f"{waiting}, and will be upgraded to {newest}")


def _version_of(headers: str) -> int | None:
    try:
        return Headers.load(headers).version
    except InvalidPayload:
        return None
