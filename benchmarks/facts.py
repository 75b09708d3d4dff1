"""Under what conditions a run was made: the machine, the versions, and what makes a commit durable on each store."""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

from redis import Redis as RedisClient
from sqlalchemy import text

from benchmarks.percentiles import percentile
from benchmarks.stores import Store
from outbox.drivers.database.connection.engine import create_engine, parse_url

_PACKAGES = ("outbox-queue", "sqlalchemy", "asyncmy", "aiosqlite", "redis", "pydantic", "uvloop")
_INNODB_VARIABLES = (
    "version",
    "innodb_flush_log_at_trx_commit",
    "sync_binlog",
    "log_bin",
    "binlog_format",
    "innodb_doublewrite",
    "innodb_flush_method",
    "innodb_buffer_pool_size",
    "innodb_redo_log_capacity",
    "innodb_log_file_size",
)
_REDIS_SETTINGS = ("appendonly", "appendfsync", "save")
_SYNCS = 200


def machine(directory: Path) -> Mapping[str, str]:
    """This machine, and the disk on which servers of this run keep their data."""
    cpuinfo, meminfo = _read("/proc/cpuinfo"), _read("/proc/meminfo")
    model = re.search(r"model name\s*:\s*(.+)", cpuinfo)
    memory = re.search(r"MemTotal:\s+(\d+) kB", meminfo)
    syncs = _sync_milliseconds(directory)
    return {
        "processor": model[1] if model else platform.processor() or platform.machine(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{int(memory[1]) / 1_048_576:.0f} GiB" if memory else "unknown",
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "file system": _file_system(directory),
        "fdatasync of 4 KiB": f"{median(syncs):.2f} ms, 95% under {percentile(syncs, 95):.2f} ms",
        "load when it began": " ".join(f"{load:.2f}" for load in os.getloadavg()),
    }


def versions() -> Mapping[str, str]:
    return {"python": platform.python_version()} | {package: _version(package) for package in _PACKAGES}


async def settings(store: Store) -> Mapping[str, str]:
    """What the store says of itself."""
    if store.is_redis:
        return _redis_settings(store)
    if store.is_sql_server:
        with store.sql() as connection:
            rows = connection.execute(text("SHOW GLOBAL VARIABLES"))
            variables = {row[0].lower(): str(row[1]) for row in rows}
        return {name: variables[name] for name in _INNODB_VARIABLES if name in variables}
    return await _sqlite_settings(store)


async def _sqlite_settings(store: Store) -> Mapping[str, str]:
    """Those of the connections that outbox opens."""
    engine = create_engine(parse_url(store.url), pool_size=1)
    async with engine.connect() as connection:
        values = {
            "version": await connection.scalar(text("SELECT sqlite_version()")),
            "journal_mode": await connection.scalar(text("PRAGMA journal_mode")),
            "synchronous": await connection.scalar(text("PRAGMA synchronous")),
        }
    await engine.dispose()
    names = {0: "OFF", 1: "NORMAL", 2: "FULL", 3: "EXTRA"}
    return {**values, "synchronous": names.get(values["synchronous"], str(values["synchronous"]))}


def _redis_settings(store: Store) -> Mapping[str, str]:
    with RedisClient.from_url(store.url, decode_responses=True) as client:
        information: Any = client.info("server")
        configured: Any = client.config_get(*_REDIS_SETTINGS)
    return {"version": information["redis_version"], **{name: configured[name] or "-" for name in _REDIS_SETTINGS}}


def _sync_milliseconds(directory: Path) -> list[float]:
    """How long a small write takes to reach the disk: what a commit costs at least."""
    path = directory / "sync"
    times = []
    with path.open("wb", buffering=0) as file:
        for _ in range(_SYNCS):
            file.write(bytes(4_096))
            begun = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append(1_000 * (time.perf_counter() - begun))
    path.unlink()
    return times


def _file_system(directory: Path) -> str:
    """Of the longest mount point that the directory lies under."""
    mounts = [line.split() for line in _read("/proc/mounts").splitlines()]
    above = [mount for mount in mounts if directory.is_relative_to(mount[1])]
    return max(above, key=lambda mount: len(mount[1]))[2] if above else "unknown"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "-"


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
