"""What a REDIS_URL means: one server, a master that Sentinel knows, or a cluster."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from outbox.drivers.redis.connection.guarded import ClusterClient, guard
from outbox.errors import ConfigurationError
from outbox.url_secrets import without_secrets

_SENTINEL, _CLUSTER = "redis+sentinel", "redis+cluster"
_PLAIN = ("redis", "rediss", "unix")
_EXAMPLES = (
    "redis://:password@host:6379/0, rediss://… with TLS, unix:///run/redis.sock?db=0, "
    "redis+sentinel://host:26379,host2:26379/master-name/0, redis+cluster://host:6379,host2:6379"
)
_DEFAULT_PORTS = {_SENTINEL: 26_379, _CLUSTER: 6_379}

_PROTOCOL = 2
"""The form of answers, the same with every version of the package: `raw_connection` reads no other."""

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 10.0
"""Longer than any script of outbox takes, and short enough that a worker whose server has frozen learns it well before
its leases end."""


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """A checked URL.

    Raises:
        ConfigurationError: on `parse`, when it is none that outbox knows.
    """

    url: str = field(repr=False)
    scheme: str
    hosts: tuple[tuple[str, int], ...] = ()
    master: str = ""
    options: tuple[tuple[str, Any], ...] = field(default=(), repr=False)
    sentinel_options: tuple[tuple[str, Any], ...] = field(default=(), repr=False)

    @classmethod
    def parse(cls, url: str) -> RedisUrl:
        _refuse_unescaped(url)
        try:
            parts = urlsplit(url)
        except ValueError:  # brackets that are not those of an IPv6 address
            raise ConfigurationError(f"{without_secrets(url)!r} is not the URL of a Redis: write {_EXAMPLES}") from None
        if parts.scheme in _PLAIN:
            address = cls(url, parts.scheme)
            # Here, because what only sends messages reports no later failure.
            address.client()
            return address
        if parts.scheme not in _DEFAULT_PORTS:
            raise ConfigurationError(f"{without_secrets(url)!r} is not the URL of a Redis: write {_EXAMPLES}")
        try:
            return _several(url, parts)
        except ValueError as error:
            raise ConfigurationError(f"{without_secrets(url)!r}: {error}: write {_EXAMPLES}") from None

    @property
    def is_cluster(self) -> bool:
        return self.scheme == _CLUSTER

    def __str__(self) -> str:
        return without_secrets(self.url)

    def client(self) -> Redis:
        """
        Raises:
            ConfigurationError: the URL has an option that there is not.
        """
        if self.scheme == _SENTINEL:
            options = {**_timeouts(), "retry": _once(), **dict(self.sentinel_options)}
            sentinel: Any = Sentinel(list(self.hosts), sentinel_kwargs=options, **_defaults(), **dict(self.options))  # type: ignore[no-untyped-call]
            return guard(sentinel.master_for(self.master))
        try:
            _check_number(self.url)
            # What is in the URL would win.
            url = re.sub(r"(?<=[?&])protocol=[^&]*&?", "", self.url)
            client = Redis.from_url(url, **_defaults(over_tcp=self.scheme != "unix"))
            # Options are looked at when a connection is made, which connects to nothing yet.
            client.connection_pool.make_connection()  # type: ignore[no-untyped-call]
            return guard(client)
        except (ValueError, TypeError, RedisError) as error:
            unknown = re.search(r"unexpected keyword argument ('\w+')", str(error))
            said = f"the option {unknown[1]} is not known" if unknown else _without_port(error)
            raise ConfigurationError(f"{self}: {said}: write {_EXAMPLES}") from None

    def node(self) -> Redis:
        """Any one node of a cluster: what is published to it reaches all of them."""
        host, port = random.choice(self.hosts)  # noqa: S311 - the next one when this one is down
        return guard(Redis(host=host, port=port, **_defaults(), **dict(self.options)))

    def cluster(self) -> ClusterClient:
        nodes = [ClusterNode(host, port) for host, port in self.hosts]
        return ClusterClient(startup_nodes=nodes, **_defaults(), **dict(self.options))


def _refuse_unescaped(url: str) -> None:
    """One of these characters in a password ends the part of the URL in which it is. The rest of the password would be
    taken for a host, a path or an option, and shown in errors.

    Raises:
        ConfigurationError: there is one.
    """
    before, at, _ = url.partition("://")[2].rpartition("@")
    if at and re.search("[/?#]", before):
        raise ConfigurationError(
            f"{without_secrets(url)!r}: write %2F, %3F, %23 and %40 for /, ?, # and @ in a password or an option"
        )


def _without_port(error: Exception) -> str:
    """What stands in the place of the port may be a password."""
    return "the port is not a number" if "Port " in str(error) else str(error)


def _check_number(url: str) -> None:
    """The package takes what is no number for database 0."""
    parts = urlsplit(url)
    number = parts.path.strip("/")
    if parts.scheme != "unix" and number and not number.isdecimal():
        raise ValueError("the path is not the number of a database")


def _timeouts() -> dict[str, Any]:
    return {"socket_timeout": ANSWER_SECONDS, "socket_connect_timeout": CONNECT_SECONDS}


def _once() -> Retry:
    """The caller knows better: another sentinel, or how often a command may be sent."""
    return Retry(NoBackoff(), 0)


def _defaults(*, over_tcp: bool = True) -> dict[str, Any]:
    # Nothing is sent again behind our back: a claim that may have been carried out has to say so.
    options = {**_timeouts(), "retry": _once(), "protocol": _PROTOCOL}
    return {**options, "socket_keepalive": True} if over_tcp else options


def _several(url: str, parts: SplitResult) -> RedisUrl:
    """A URL with several hosts, which `urlsplit` leaves whole."""
    user, _, where = parts.netloc.rpartition("@")
    hosts = tuple(_host(one, _DEFAULT_PORTS[parts.scheme]) for one in where.split(",") if one)
    if not hosts:
        raise ValueError("it names no host")
    username, _, password = user.partition(":")
    options = {"username": unquote(username), "password": unquote(password)}
    path = [unquote(step) for step in parts.path.split("/") if step]
    master = ""
    if parts.scheme == _SENTINEL:
        if not path:
            raise ValueError("it does not name the master")
        master = path.pop(0)
        options["db"] = path.pop(0) if path else ""
    if path:
        raise ValueError("the path has more in it than it may have")
    return RedisUrl(
        url,
        parts.scheme,
        hosts,
        master,
        tuple((name, int(value) if name == "db" else value) for name, value in options.items() if value),
        _sentinel_options(parts),
    )


def _sentinel_options(parts: SplitResult) -> tuple[tuple[str, str], ...]:
    """``?sentinel_username=…&sentinel_password=…``: the sentinels' own, where they have one."""
    given = parse_qs(parts.query, keep_blank_values=True)
    known = {f"sentinel_{name}": name for name in ("username", "password")} if parts.scheme == _SENTINEL else {}
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ValueError(f"the option {unknown[0]} is not known")
    return tuple((known[name], values[-1]) for name, values in given.items())


def _host(text: str, default_port: int) -> tuple[str, int]:
    # The brackets are those of an IPv6 address.
    found = re.fullmatch(r"(\[[^\]]+\]|[^:\[\]]+)(?::(\d+))?", text)
    if found is None:
        raise ValueError("a host is not written as host:port")
    return found[1].strip("[]"), int(found[2] or default_port)
