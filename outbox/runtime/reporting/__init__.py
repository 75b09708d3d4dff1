"""What a worker reports: log lines and counters."""
