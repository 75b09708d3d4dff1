"""No part of a password is shown, however the URL that it is in is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from outbox.connections import open_driver
from outbox.errors import ConfigurationError
from outbox.settings import ConnectionSettings, Settings
from outbox.url_secrets import without_secrets

SECRET = ("S3CR", "ET9Z")
"""Two halves of a password: whatever comes between them, neither may be shown."""

FORMS = (
    "{scheme}://shop:{password}@localhost/shop",
    "{scheme}://shop:{password}@localhost:3306/shop",
    "{scheme}://:{password}@localhost/0",
    "{scheme}://shop:{password}@localhost:port/shop",
    "{scheme}://shop:{password}@localhost",
    "{scheme}://shop:{password}@/shop",
    "{scheme}://shop:{password}",
    "{scheme}://:{password}",
    "{scheme}://shop:{password}/shop",
    "{scheme}://localhost/shop?password={password}",
    "{scheme}://localhost/0?passwd={password}&ssl_ca=x",
    "{scheme}://shop:{password}@localhost/shop?bogus=1",
    "{scheme}://shop:{password}@[::1/shop",
    "{scheme}:/shop:{password}@localhost/shop",
    "shop:{password}@localhost/shop",
)
BETWEEN = ("", "@", "/", ":", "?", "#", "%", "@:", ":@", "/@", "?@", "@/", "@?", "&", "=", " ", "[", "%zz", "@@")
SCHEMES = (
    *("mysql+asyncmy", "mariadb", "mysql+pymysql", "postgresql", "mysql"),
    *("redis", "rediss", "redis+cluster", "redis+sentinel", "unix", "nonsense"),
)


def can_be_told(has_host: bool, is_option: bool, between: str) -> bool:
    """``user:one@two`` is a user, a password and a host, and an option ends at the next &."""
    return not ("@" in between and not has_host and not is_option) and not ("&" in between and is_option)


@pytest.fixture(autouse=True)
def directory_without_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings are loaded three thousand times, and each would read this repository's pyproject.toml."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("between", BETWEEN)
def test_no_half_of_a_password_is_shown(scheme: str, between: str) -> None:
    driver = "redis" if scheme.startswith(("redis", "unix")) else "database"
    urls = {
        str(number): form.format(scheme=scheme, password=between.join(SECRET))
        for number, form in enumerate(FORMS)
        if can_be_told("@" in form, "?password" in form or "?passwd" in form, between)
    }
    settings = Settings.load(connections={name: {"driver": driver, "url": url} for name, url in urls.items()})
    shown = [repr(settings), str(settings)]
    for connection, url in urls.items():
        shown.append(without_secrets(url))
        try:
            shown.append(open_driver(settings, connection).description)
        except ConfigurationError as error:
            shown += [str(error), repr(error)]
    for text in shown:
        assert not any(half in text for half in SECRET), text
        assert "\n" not in text


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("mysql+asyncmy://shop:p%40ss@db/shop", "mysql+asyncmy://shop:***@db/shop"),
        ("mysql+asyncmy://shop@db:3306/shop?ssl_ca=x", "mysql+asyncmy://shop@db:3306/shop?ssl_ca=x"),
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("redis+cluster://one:1,two:2", "redis+cluster://one:1,two:2"),
        ("sqlite+aiosqlite:////var/lib/shop.db", "sqlite+aiosqlite:////var/lib/shop.db"),
        ("mysql+asyncmy://[::1]:3306/shop", "mysql+asyncmy://[::1]:3306/shop"),
        ("outbox.db", "outbox.db"),
    ],
)
def test_all_else_is_shown(url: str, shown: str) -> None:
    assert without_secrets(url) == shown


def test_an_unescaped_character_is_named_with_what_to_write() -> None:
    with pytest.raises(ConfigurationError, match="%40"):
        open_driver(Settings.load(database_url="mysql+asyncmy://shop:p@ss@localhost/shop"), "database")
    with pytest.raises(ConfigurationError, match="%2F"):
        open_driver(Settings.load(redis_url="redis://:p/ss@localhost/0"), "redis")


def test_a_password_in_other_settings_is_not_shown() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings.load(connections={"x": {"driver": 5, "url": ["mysql://u:S3CRET@h/d"]}})
    assert "S3CRET" not in str(caught.value)
    with pytest.raises(ConfigurationError) as caught:
        Settings.load(database_url=["S3CRET"])
    assert "S3CRET" not in str(caught.value)
    assert "S3CRET" not in repr(ConnectionSettings(url="mysql://u:S3CRET@h/d"))
