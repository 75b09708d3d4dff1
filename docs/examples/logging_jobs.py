"""Where the lines of a worker go: `OUTBOX_JOBS=logging_jobs,receipts` imports this module first."""

# shop/jobs.py, or a module of its own that OUTBOX_JOBS names
import logging.config

logging.config.dictConfig(
    {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"plain": {"format": "%(asctime)s %(name)s %(levelname)s %(message)s"}},
        "handlers": {"file": {"class": "logging.FileHandler", "filename": "worker.log", "formatter": "plain"}},
        "loggers": {"outbox": {"level": "INFO", "handlers": ["file"], "propagate": False}},
    }
)
