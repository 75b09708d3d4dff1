"""The demonstration: `python -m app.demo`. Feeds, kills, waits, and then counts from the outside."""
