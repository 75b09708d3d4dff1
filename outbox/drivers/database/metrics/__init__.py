"""Metrics of queues: written by workers each minute, merged by upkeep, read by operators."""
