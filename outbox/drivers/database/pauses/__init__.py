"""Pauses of queues, of job classes and of keys, and circuit breakers."""
