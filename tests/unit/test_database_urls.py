"""When two URLs certainly name different databases: a refusal of what works is worse than no refusal."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import make_url

from outbox.drivers.database.connection.engine import certainly_differ


@pytest.mark.parametrize(
    ("one", "other", "differ"),
    [
        ("mysql+pymysql://app:a@localhost/shop", "mysql+asyncmy://outbox:b@127.0.0.1:3306/shop", False),
        ("mysql+asyncmy://proxy:6033/shop", "mariadb+asyncmy://db.example:3306/shop?charset=utf8mb4", False),
        ("mysql+asyncmy://localhost/Shop", "mysql+asyncmy://localhost/shop", False),
        ("mysql+asyncmy://localhost/tenant_7", "mysql+asyncmy://localhost/shop", True),
        ("mysql+asyncmy://", "mysql+asyncmy://localhost/shop", False),
        ("mysql+asyncmy:///?read_default_file=/etc/my.cnf", "mysql+asyncmy://localhost/shop", False),
        ("sqlite+aiosqlite:///shop.db", "mysql+asyncmy://localhost/shop", True),
        ("sqlite://", "mysql+asyncmy://localhost/shop", False),
        ("sqlite://", "sqlite+aiosqlite:///shop.db", False),
        ("sqlite:///:memory:", "sqlite+aiosqlite:///shop.db", False),
        ("sqlite:///shop.db", "sqlite+aiosqlite:///./shop.db", False),
        ("sqlite:///link.db", "sqlite+aiosqlite:///shop.db", False),
        ("sqlite:///file:other.db?uri=true", "sqlite+aiosqlite:///shop.db", False),
        ("sqlite:///nowhere.db", "sqlite+aiosqlite:///shop.db", False),
        ("sqlite:///other.db", "sqlite+aiosqlite:///shop.db", True),
    ],
)
def test_only_what_cannot_be_the_same_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one: str, other: str, differ: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("shop.db", "other.db"):
        (tmp_path / name).touch()
    (tmp_path / "link.db").symlink_to("shop.db")
    assert certainly_differ(make_url(one), make_url(other)) is differ
    assert certainly_differ(make_url(other), make_url(one)) is differ
