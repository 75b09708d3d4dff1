# workers/reports.py
from outbox import WorkerOptions

worker = WorkerOptions(queue="reports", concurrency=2, timeout=900, grace=300, max_jobs=50)
