"""Asks a server whether it answers, and waits until it does."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from redis import Redis, RedisError
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from tests.servers.errors import ServerFailedError
from tests.servers.sql import connection

ANSWER_SECONDS = 20.0


def ping(url: str) -> None:
    """Return when the server at `url` has answered a question of its own protocol.

    :raises ServerFailedError: it did not.
    """
    scheme = urlsplit(url).scheme
    try:
        _QUESTIONS[scheme.partition("+")[0]](url)
    except (DBAPIError, RedisError, OSError) as error:
        raise ServerFailedError(f"{url} does not answer: {error}") from error


def wait_until_it_answers(url: str, *, seconds: float, still_running: Callable[[], bool] = lambda: True) -> None:
    """Ask again and again: a server tells nobody when it is ready.

    :raises ServerFailedError: it does not answer within `seconds`, or is no longer running.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            return ping(url)
        except ServerFailedError:
            if not still_running() or time.monotonic() > deadline:
                raise
        time.sleep(0.05)


def _ask_database(url: str) -> None:
    with connection(url, timeout=ANSWER_SECONDS) as database:
        database.execute(text("SELECT 1"))


def _ask_redis(url: str) -> None:
    with Redis.from_url(url, socket_timeout=ANSWER_SECONDS, socket_connect_timeout=ANSWER_SECONDS) as client:
        client.ping()


def _ask_broker(url: str) -> None:
    """MQTT 3.1.1: an anonymous CONNECT with a clean session, answered by CONNACK with return code 0."""
    address = urlsplit(url)
    connect = b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x0a\x00\x00"
    with socket.create_connection((address.hostname or "", address.port or 1883), timeout=ANSWER_SECONDS) as broker:
        broker.sendall(connect)
        if broker.recv(4) != b"\x20\x02\x00\x00":
            raise OSError("the broker refused an anonymous connection")


_QUESTIONS: dict[str, Callable[[str], None]] = {
    "mysql": _ask_database,
    "redis": _ask_redis,
    "mqtt": _ask_broker,
}
