"""Integrations with other packages. Each needs its extra; nothing else of outbox imports them."""
