"""Servers in containers, where an engine answers."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tests.servers.errors import ServerFailedError
from tests.servers.ping import wait_until_it_answers

ENGINE_SECONDS = 2.0
START_SECONDS = 120.0


@dataclass(frozen=True)
class Image:
    """A container image, how to start it, and how to reach what it runs."""

    name: str
    port: int
    url: str
    """With {address} for host:port."""
    command: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)


def engine_answers() -> bool:
    """Whether a container engine answers within two seconds.

    Asked without its client library, which takes half a second to load and may wait for a minute.
    """
    try:
        with _connect(os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock") as engine:
            if os.environ.get("DOCKER_TLS_VERIFY"):
                return True  # to ask more would take its certificates
            engine.sendall(b"GET /_ping HTTP/1.0\r\nHost: engine\r\n\r\n")
            return b" 200 " in engine.recv(64)
    except OSError:
        return False


@contextmanager
def container(image: Image) -> Iterator[str]:
    """Run `image` and yield the URL of its server. testcontainers' reaper removes it if the tests are killed.

    :raises ServerFailedError: it did not start (no such image, no network), or does not answer.
    """
    from testcontainers.core.container import DockerContainer  # heavy, and of no use without an engine

    box = DockerContainer(image.name).with_exposed_ports(image.port)
    for name, value in image.environment.items():
        box = box.with_env(name, value)
    if image.command:
        box = box.with_command(list(image.command))
    try:
        box.start()
        address = f"{box.get_container_host_ip()}:{box.get_exposed_port(image.port)}"
        url = image.url.format(address=address)
        wait_until_it_answers(url, seconds=START_SECONDS)
    except Exception as error:  # of the engine, of its client, of testcontainers: each has a tree of its own
        box.stop()
        raise ServerFailedError(f"the container {image.name} did not start: {error}") from error
    try:
        yield url
    finally:
        box.stop()


def _connect(host: str) -> socket.socket:
    address = urlsplit(host)
    if address.scheme != "unix":
        return socket.create_connection((address.hostname or "", address.port or 2375), timeout=ENGINE_SECONDS)
    engine = socket.socket(socket.AF_UNIX)
    engine.settimeout(ENGINE_SECONDS)
    try:
        engine.connect(address.path)
    except OSError:
        engine.close()
        raise
    return engine
