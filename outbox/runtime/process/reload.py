"""``--reload``: new worker processes whenever the sources change. For development."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from outbox.errors import ConfigurationError
from outbox.events import Events, SourcesChanged
from outbox.runtime.process.supervisor import Supervisor
from outbox.runtime.service import BackgroundLoop


class Reloader(BackgroundLoop):
    """Watches the Python files below ``directory``.

    Raises:
        ConfigurationError: the package ``watchfiles`` is missing.
    """

    def __init__(self, supervisor: Supervisor, events: Events, directory: Path) -> None:
        super().__init__()
        if find_spec("watchfiles") is None:
            raise ConfigurationError("--reload needs the package watchfiles: pip install 'outbox-queue[reload]'")
        self._supervisor = supervisor
        self._events = events
        self._directory = directory

    async def run(self) -> None:
        import watchfiles  # here, because it would take a megabyte of every worker

        changes = watchfiles.awatch(
            self._directory, watch_filter=watchfiles.PythonFilter(), stop_event=self._asked, raise_interrupt=False
        )
        async for change in changes:
            self._events.emit(SourcesChanged(tuple(sorted({path for _, path in change}))))
            self._supervisor.restart()


async def run_reloading(supervisor: Supervisor, reloader: Reloader) -> int:
    """Run ``supervisor`` to its end, watched by ``reloader``; returns the exit code."""
    await reloader.start()
    try:
        return await supervisor.run()
    finally:
        await reloader.stop()
