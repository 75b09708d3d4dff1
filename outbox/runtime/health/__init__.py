"""Whether a worker lives and is ready: told over HTTP, and by its processes to their supervisor."""
