"""Jobs in MySQL, MariaDB or SQLite."""

from outbox.drivers.database.driver import DatabaseDriver
from outbox.drivers.database.operations.failed_job_archive import FailedJobArchive
from outbox.drivers.database.tables import metadata

__all__ = ["DatabaseDriver", "FailedJobArchive", "metadata"]
