"""Connections to Redis: URLs, clients, retries and errors."""
