"""Jobs dispatched to Redis in a transaction of the database: written there first, and moved on after the commit."""
