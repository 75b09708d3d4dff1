"""The life of a job in Redis: inserted, claimed, leased, settled."""
