"""The relay's thread in a process that dispatches: never in the way of a commit."""

from __future__ import annotations

import pytest

from outbox.errors import ConfigurationError
from outbox.relay import thread as module
from outbox.relay.thread import RelayThreads


class Stores:
    """Both of them, closed without an error."""

    async def close(self) -> None: ...


def test_a_relay_that_cannot_be_opened_fails_no_commit(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise ConfigurationError("no package")

    monkeypatch.setattr(module, "open_relay_source", lambda _: Stores())
    monkeypatch.setattr(module, "open_relay_target", refuse)
    relays = RelayThreads()
    for count in (1, 2):
        relays.wake("redis")
        thread = relays._threads["redis"]._thread
        assert thread is not None
        thread.join()
        assert len(caplog.records) == count
