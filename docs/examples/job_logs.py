"""Lines that say which job wrote them: `OUTBOX_JOBS=job_logs`."""

import logging.config

import outbox

logging.config.dictConfig(
    {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"job": {"()": "outbox.contrib.logs.JobContextFilter"}},
        "formatters": {"plain": {"format": "%(message)s (%(job)s %(job_id)s, attempt %(attempt)s, %(tenant)s)"}},
        "handlers": {
            "file": {"class": "logging.FileHandler", "filename": "jobs.log", "formatter": "plain", "filters": ["job"]}
        },
        "root": {"level": "INFO", "handlers": ["file"]},
    }
)


class ImportPrices(outbox.Job):
    tenant: str

    def handle(self) -> None:
        logging.getLogger("prices").info("imported")
