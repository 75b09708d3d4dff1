"""Bulk operations: rows that say what operators want done to many jobs, and the work that they are."""
