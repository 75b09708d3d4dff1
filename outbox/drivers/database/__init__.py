"""Jobs in MySQL, MariaDB or SQLite."""

from outbox.drivers.database.driver import DatabaseDriver
from outbox.drivers.database.keeping import FailedJobKeeper
from outbox.drivers.database.tables import metadata

__all__ = ["DatabaseDriver", "FailedJobKeeper", "metadata"]
