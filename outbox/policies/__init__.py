"""Policies of jobs as pure decisions: options, headers, keys. No I/O; rows are in ``drivers/database/policies/``."""
