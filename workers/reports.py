"""Reports: few and long. They may take minutes to finish when the worker is told to stop."""

from outbox import WorkerOptions

# Two at once: more would share one interpreter and all be late. After fifty the process ends, and whoever keeps it
# running (systemd, the container engine) starts a fresh one, so that whatever a library leaks is returned.
worker = WorkerOptions(queue="reports", concurrency=2, timeout=900, grace=300, max_jobs=50)
