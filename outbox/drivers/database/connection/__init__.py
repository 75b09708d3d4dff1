"""Connections to a database: engines, transactions and the statements that go past SQLAlchemy's."""
