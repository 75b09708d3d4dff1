"""Real servers for the tests: MySQL, MariaDB, Redis and Mosquitto.

A server comes from the environment, from a container or from a program on this machine, in this order
(`discover.py`). Crash tests start servers of their own, which they may kill: `MySQL`, `MariaDB`, `Redis`, `Mosquitto`.
"""

from tests.servers.discover import BACKENDS, find
from tests.servers.errors import ServerFailedError, ServerMissingError
from tests.servers.local import LocalServer
from tests.servers.mariadb import MariaDB
from tests.servers.mosquitto import Mosquitto
from tests.servers.mysql import MySQL
from tests.servers.redis import Redis
from tests.servers.server import Server

__all__ = [
    "BACKENDS",
    "LocalServer",
    "MariaDB",
    "Mosquitto",
    "MySQL",
    "Redis",
    "Server",
    "ServerFailedError",
    "ServerMissingError",
    "find",
]
