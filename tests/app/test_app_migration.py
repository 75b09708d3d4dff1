"""Migration 0002: the application's tables, up and down, as the models say."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import inspect

from app import db
from app.models import metadata
from app.settings import settings

ROOT = Path(__file__).parents[2]


@pytest.fixture
def alembic(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setenv("DATABASE_URL", database_url)
    settings.cache_clear()
    return Config(ROOT / "alembic.ini", attributes={"configure_logging": False})


def tables() -> set[str]:
    try:
        return set(inspect(db.blocking_engine()).get_table_names())
    finally:
        asyncio.run(db.dispose())


def test_the_applications_tables_come_and_go_without_outboxs(alembic: Config) -> None:
    command.upgrade(alembic, "0001")
    before = tables()

    command.upgrade(alembic, "0002")
    assert tables() - before == set(metadata.tables)

    command.downgrade(alembic, "0001")
    assert tables() == before


def test_the_migration_makes_what_the_models_say(alembic: Config) -> None:
    command.upgrade(alembic, "head")
    try:
        with db.blocking_engine().connect() as connection:
            ours = {"include_object": lambda _o, name, kind, *_: kind != "table" or name in metadata.tables}
            context = MigrationContext.configure(connection, opts=ours)
            assert compare_metadata(context, metadata) == []
    finally:
        asyncio.run(db.dispose())


def test_the_migration_imports_nothing_of_ours() -> None:
    (migration,) = (ROOT / "migrations" / "versions").glob("0002_*.py")
    imports = [line for line in migration.read_text().splitlines() if line.startswith(("import ", "from "))]

    assert all(line.split()[1].split(".")[0] in {"sqlalchemy", "alembic"} for line in imports)
