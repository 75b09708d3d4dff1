"""The other queues, each in its best honest configuration for jobs that do nothing. These run in their own environment.

``python -m benchmarks.peers.programs.NAME COUNT`` makes whatever tables there are and enqueues; the URL of the store is
in the environment. How workers are started is in `benchmarks.peers.contenders`.
"""
