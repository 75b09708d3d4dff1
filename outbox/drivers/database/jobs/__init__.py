"""The life of a job in a database: inserted, claimed, leased, settled."""
