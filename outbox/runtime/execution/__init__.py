"""One attempt: the call of its handler, its timeout, its end."""
