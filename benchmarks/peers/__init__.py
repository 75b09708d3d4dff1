"""outbox beside other job queues for Python: `make bench-peers` installs them and runs `python -m benchmarks.peers`."""
