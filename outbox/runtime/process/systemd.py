"""Tells systemd when a worker is ready, for units of ``Type=notify``.

The protocol is one datagram to the socket in ``NOTIFY_SOCKET``; see sd_notify(3).
"""

from __future__ import annotations

import logging
import os
import socket

from outbox.events import Event, Events, WorkerStarted, WorkerStopping

SOCKET = "NOTIFY_SOCKET"

_log = logging.getLogger("outbox.runtime")


def notify_systemd(events: Events, *, supervised: bool) -> None:
    """Send ``READY=1`` when the worker has started, and ``STOPPING=1`` when it stops by itself.

    Does nothing without ``NOTIFY_SOCKET``. The variable is removed, so that a process that a job starts cannot speak
    for the worker. A supervised process is one of several: its end is not the end of the unit.
    """
    address = os.environ.pop(SOCKET, "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]  # the abstract namespace of Linux

    def tell(event: Event) -> None:
        if isinstance(event, WorkerStarted):
            _send(address, f"READY=1\nSTATUS=drains {', '.join(event.queues)}")
        else:
            _send(address, "STOPPING=1")

    events.listen(tell, WorkerStarted, *(() if supervised else (WorkerStopping,)))


def _send(address: str, message: str) -> None:
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
            connection.setblocking(False)
            connection.connect(address)
            connection.send(message.encode())
    except OSError as error:
        _log.warning("systemd was not told %r: %s", message.splitlines()[0], error)
