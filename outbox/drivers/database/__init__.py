"""Jobs in MySQL, MariaDB or SQLite."""

from outbox.drivers.database.driver import DatabaseDriver, open_driver
from outbox.drivers.database.operations.failed_job_archive import FailedJobArchive, open_failed_store
from outbox.drivers.database.tables import metadata

__all__ = ["DatabaseDriver", "FailedJobArchive", "metadata", "open_driver", "open_failed_store"]
