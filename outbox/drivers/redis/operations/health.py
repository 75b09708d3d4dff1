"""What outbox asks of a Redis: its version and its role, that it evicts nothing, and that it writes to its disk."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from redis.exceptions import RedisError

from outbox.drivers.redis.connection.store import Store
from outbox.drivers.redis.script import command
from outbox.drivers.values import HealthIssue
from outbox.errors import BackendUnavailable, ConfigurationError, OutboxError, UnsupportedServer

_OLDEST = (7, 0)
_NOEVICTION = "noeviction"

Info = Mapping[str, Any]


async def check(store: Store) -> str:
    """The name and version of the server.

    Raises:
        UnsupportedServer: it is older than Redis 7.
        ConfigurationError: it would evict jobs, or is not what the URL says.
    """
    infos = await store.info()
    for info in infos:
        check_server(info, str(store.address), one_slot=store.one_slot)
    return _version(infos[0])


def check_server(info: Info, where: str, *, one_slot: bool) -> None:
    version = str(info.get("redis_version", ""))
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    if numbers < _OLDEST:
        raise UnsupportedServer(f"{where} is Redis {version}; outbox needs Redis 7 or later, or Valkey 8 or later")
    if one_slot and info.get("cluster_enabled") in (1, "1"):
        raise ConfigurationError(f"{where} is a Redis Cluster: write REDIS_URL=redis+cluster://host:port")
    policy = str(info.get("maxmemory_policy", _NOEVICTION))
    if policy.startswith("allkeys") and int(info.get("maxmemory", 0)) > 0:
        raise ConfigurationError(
            f"{where} evicts jobs when its memory is used up (maxmemory-policy {policy}): set maxmemory-policy "
            f"{_NOEVICTION}, or give outbox a Redis of its own"
        )


def _version(info: Info) -> str:
    if info.get("valkey_version"):
        return f"Valkey {info['valkey_version']}"
    return f"Redis {info.get('redis_version', '')}"


async def health_issues(store: Store) -> list[HealthIssue]:
    fsync = await _setting(store, "appendfsync")
    return [issue for info in await store.info() for issue in _judge(info, fsync)]


async def _setting(store: Store, name: str) -> str | None:
    """None where the server refuses to tell, as managed ones do."""
    try:
        answer = await store.do(command("CONFIG GET", name))
    except BackendUnavailable:
        raise
    except (OutboxError, RedisError):
        return None
    values = answer if isinstance(answer, dict) else dict(zip(answer[::2], answer[1::2], strict=False))
    value = values.get(name, values.get(name.encode()))
    return value.decode() if isinstance(value, bytes) else value


def _judge(info: Info, fsync: str | None) -> Iterator[HealthIssue]:
    if info.get("role") == "slave":
        yield HealthIssue(
            "the server is a replica, which takes no writes", "point REDIS_URL at the master", serious=True
        )
    if not int(info.get("aof_enabled", 1)):
        yield HealthIssue(
            "appendonly is off: when Redis ends unexpectedly, every job since its last snapshot is lost",
            "set appendonly yes",
        )
    elif fsync == "no":
        yield HealthIssue(
            "appendfsync is no: a power failure loses the jobs of the last half minute, or more",
            "set appendfsync everysec, or always",
        )
    if info.get("aof_last_write_status", "ok") != "ok":
        yield HealthIssue("the append-only file cannot be written", "look at the disk of the server", serious=True)
    if info.get("rdb_last_bgsave_status", "ok") != "ok":
        yield HealthIssue(
            "the last snapshot failed, and a server that cannot save refuses writes", "look at the disk of the server"
        )
    policy = str(info.get("maxmemory_policy", _NOEVICTION))
    if policy.startswith("allkeys"):
        yield HealthIssue(
            f"maxmemory-policy is {policy}: jobs would be evicted if a maxmemory was set",
            f"set maxmemory-policy {_NOEVICTION}",
        )
