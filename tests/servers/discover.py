"""Finds the server that the tests of a backend use, in this order:

1. a URL in the environment,
2. a container, where a container engine answers,
3. a program on this machine, started on a free port with its data in a temporary directory.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import make_url

from tests.servers import innodb, redis
from tests.servers.containers import Image, container, engine_answers
from tests.servers.errors import ServerFailedError
from tests.servers.local import LocalServer
from tests.servers.mariadb import MARIADB_SETTINGS, MariaDB
from tests.servers.mosquitto import Mosquitto
from tests.servers.mysql import MySQL
from tests.servers.ping import ping
from tests.servers.redis import Redis
from tests.servers.server import Server

log = logging.getLogger(__name__)

SQL_URL = "mysql+asyncmy://root@{address}"


@dataclass(frozen=True)
class Backend:
    """The three places where a kind of server can come from."""

    variable: str
    image: Image
    local: type[LocalServer]


BACKENDS = {
    backend.local.kind: backend
    for backend in (
        Backend(
            "OUTBOX_TEST_MYSQL_URL",
            Image("mysql:9", 3306, SQL_URL, innodb.SETTINGS, {"MYSQL_ALLOW_EMPTY_PASSWORD": "yes"}),
            MySQL,
        ),
        Backend(
            "OUTBOX_TEST_MARIADB_URL",
            Image("mariadb:lts", 3306, SQL_URL, MARIADB_SETTINGS, {"MARIADB_ALLOW_EMPTY_ROOT_PASSWORD": "yes"}),
            MariaDB,
        ),
        Backend(
            "OUTBOX_TEST_REDIS_URL",
            Image("redis:7", 6379, "redis://{address}/0", ("redis-server", "--protected-mode", "no", *redis.SETTINGS)),
            Redis,
        ),
        Backend(
            "OUTBOX_TEST_MQTT_URL",
            Image("eclipse-mosquitto:2", 1883, "mqtt://{address}", ("mosquitto", "-c", "/mosquitto-no-auth.conf")),
            Mosquitto,
        ),
    )
}


@contextmanager
def find(kind: str, directory: Path, template: Callable[[], Path] | None = None) -> Iterator[Server]:
    """Yield a server of this kind, which keeps its data, if the tests must start it, in `directory`.

    `template` gives the directory of a prepared server, for a program on this machine to begin with.

    :raises ServerMissingError: there is none, and nothing here can start one.
    :raises ServerFailedError: there should be one, and it does not answer.
    """
    backend = BACKENDS[kind]
    if url := os.environ.get(backend.variable):
        yield _from_environment(backend, url)
    elif engine_answers():
        yield from _from_container(backend, directory, template)
    else:
        yield from _from_program(backend, directory, template)


def _from_environment(backend: Backend, url: str) -> Server:
    if backend.local.kind in ("mysql", "mariadb"):
        url = make_url(url).set(drivername="mysql+asyncmy").render_as_string(hide_password=False)
    try:
        ping(url)
    except ServerFailedError as error:
        raise ServerFailedError(f"{backend.variable} is set, but {error}") from error
    return Server(backend.local.kind, url)


def _from_container(backend: Backend, directory: Path, template: Callable[[], Path] | None) -> Iterator[Server]:
    started = False
    try:
        with container(backend.image) as url:
            started = True
            yield Server(backend.local.kind, url)
    except ServerFailedError as error:
        # An engine without the image, say with no network. A program may do as well; without one the reason counts.
        if started or backend.local.program_on_this_machine() is None:
            raise
        log.warning("%s; using a program on this machine", error)
        yield from _from_program(backend, directory, template)


def _from_program(backend: Backend, directory: Path, template: Callable[[], Path] | None) -> Iterator[Server]:
    backend.local.find_program()  # before a template is made with it
    with backend.local(directory, template=template() if template else None) as server:
        try:
            yield Server(backend.local.kind, server.url)
        finally:
            server.kill()  # its data is of no use to anyone, so it need not write it down
            shutil.rmtree(directory)
