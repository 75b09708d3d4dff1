"""A server that takes connections and then fails in one way, as a load balancer without a backend does."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

Behaviour = Callable[[socket.socket], None]
"""What becomes of a connection. It is closed afterwards."""

HANDSHAKE = 2
"""What redis-py sends before the first command, to database 0: its name and its version."""


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def close(connection: socket.socket) -> None:
    connection.close()


def reset_when_asked(connection: socket.socket) -> None:
    connection.recv(65_536)
    reset(connection)


def close_when_asked(connection: socket.socket) -> None:
    connection.recv(65_536)


def says(data: bytes, *, ending: Behaviour | None = None) -> Behaviour:
    """Answers whatever it is asked with ``data``; with ``ending``, the first time only."""

    def speak(connection: socket.socket) -> None:
        while connection.recv(65_536):
            connection.sendall(data)
            if ending is not None:
                ending(connection)
                return

    return speak


def greets(data: bytes) -> Behaviour:
    """Says ``data`` before it is asked, and is gone."""

    def speak(connection: socket.socket) -> None:
        connection.sendall(data)

    return speak


def connects(then: Behaviour) -> Behaviour:
    """Lets redis-py connect, and goes on with what it is asked first."""

    def speak(connection: socket.socket) -> None:
        asked = b""
        while asked.count(b"SETINFO") < HANDSHAKE:
            data = connection.recv(65_536)
            if not data:
                return
            connection.sendall(b"+OK\r\n" * data.count(b"SETINFO"))
            asked += data
        then(connection)

    return speak


def connects_partly(then: Behaviour) -> Behaviour:
    """Answers the first half of the handshake."""

    def speak(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(b"+OK\r\n")
        then(connection)

    return speak


@contextmanager
def serving(behaviour: Behaviour) -> Iterator[int]:
    """The port on which connections behave so."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=100)

    def serve(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            behaviour(connection)

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    accepting = threading.Thread(target=accept, daemon=True)
    accepting.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        accepting.join()
