"""What outbox costs, measured: `python -m benchmarks`. The method is in docs/benchmarks.md."""
