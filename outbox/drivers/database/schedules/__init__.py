"""Schedules in a database: their rows, their ticks, and the store that runs the statements."""
