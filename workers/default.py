"""Sensor readings: many, short, and all of them in the database."""

from outbox import WorkerOptions

worker = WorkerOptions(queue="default", concurrency=20, processes=2)
