"""Worker profiles: one module per kind of process, run by `python -m outbox.work workers.NAME`."""
