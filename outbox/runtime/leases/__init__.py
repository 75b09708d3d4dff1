"""The leases of the jobs that a worker runs."""
