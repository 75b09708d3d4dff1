"""What systemd is told by a worker of a unit with ``Type=notify``."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from outbox.events import Events, WorkerStarted, WorkerStopping
from outbox.runtime.process.systemd import SOCKET, notify_systemd

STARTED = WorkerStarted("w1", 1, (), ("mail", "default"), 20, 30.0)
STOPPING = WorkerStopping("w1", "asked to stop", 0)


@pytest.fixture(params=["file", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    name = str(tmp_path / "notify") if request.param == "file" else f"@outbox-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(name.replace("@", "\0", 1) if name.startswith("@") else name)
        listening.settimeout(5)
        monkeypatch.setenv(SOCKET, name)
        yield listening


def test_a_worker_is_ready_when_it_has_started_and_says_that_it_stops(systemd: socket.socket) -> None:
    events = Events()
    notify_systemd(events, supervised=False)
    assert SOCKET not in os.environ, "a process that a job starts does not speak for the worker"
    events.emit(STARTED)
    assert systemd.recv(1_000) == b"READY=1\nSTATUS=drains mail, default"
    events.emit(STOPPING)
    assert systemd.recv(1_000) == b"STOPPING=1"


def test_the_end_of_one_of_several_processes_is_not_the_end_of_the_unit(systemd: socket.socket) -> None:
    events = Events()
    notify_systemd(events, supervised=True)
    events.emit(STOPPING)
    events.emit(STARTED)
    assert systemd.recv(1_000).startswith(b"READY=1")


def test_a_socket_that_is_gone_stops_no_worker(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(SOCKET, str(tmp_path / "gone"))
    events = Events()
    notify_systemd(events, supervised=False)
    events.emit(STARTED)
    assert "systemd was not told 'READY=1'" in caplog.text


def test_without_systemd_there_is_no_listener(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SOCKET, raising=False)
    events = Events()
    notify_systemd(events, supervised=False)
    assert not events.wants(WorkerStarted)
