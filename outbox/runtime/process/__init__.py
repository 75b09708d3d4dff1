"""A worker as a process: signals, exit codes, limits, supervision."""
