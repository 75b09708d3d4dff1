"""The check of the installed packages."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata

from outbox.console.finding import Finding

OTHER = "outbox"
"""The distribution of this name is an SMTP client. Its module is called `outbox` as well."""


def check_installation() -> Iterator[Finding]:
    try:
        other = metadata.distribution(OTHER)
    except metadata.PackageNotFoundError:
        return
    yield Finding.problem(
        "packages",
        f"the distribution outbox {other.version} is installed beside outbox-queue; both are imported as `outbox`",
        "`pip uninstall outbox`, then `pip install --force-reinstall --no-deps outbox-queue`",
    )
