"""What a worker process is made of: one small service per file, put together by `worker`."""
