"""Receipts: they wait for the mail server most of the time, so one process carries many."""

from outbox import WorkerOptions

worker = WorkerOptions(queue="mail", concurrency=20, timeout=60)
