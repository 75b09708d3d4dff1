"""Flags > environment and .env > pyproject.toml > defaults."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import outbox
from outbox import Settings, WorkerOptions
from outbox.client_state import current_settings
from outbox.connections import connection_settings, open_driver
from outbox.errors import ConfigurationError


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_defaults_need_no_server() -> None:
    settings = Settings.load()
    assert (settings.connection, settings.database_url) == ("database", "sqlite+aiosqlite:///outbox.db")
    assert (settings.jobs, settings.payload_limit) == ((), 1_048_576)


def test_each_layer_goes_before_the_next(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (elsewhere / "pyproject.toml").write_text(
        '[tool.outbox]\njobs = "a, b"\nconcurrency = 2\nlease = 12\nsleep = 3\n'
        '[tool.outbox.connections.reports]\nurl = "sqlite+aiosqlite:///reports.db"\n'
    )
    (elsewhere / ".env").write_text("OUTBOX_CONCURRENCY=3\nOUTBOX_LEASE=13\nDATABASE_URL=sqlite+aiosqlite:///env.db\n")
    monkeypatch.setenv("OUTBOX_CONCURRENCY", "4")
    options = WorkerOptions.load(queue="mail,default")
    assert (options.sleep, options.lease, options.concurrency, options.queue) == (3, 13, 4, ("mail", "default"))
    assert WorkerOptions.load(concurrency=5).concurrency == 5
    settings = Settings.load()
    assert (settings.jobs, settings.database_url) == (("a", "b"), "sqlite+aiosqlite:///env.db")
    assert connection_settings(settings, "reports").url == "sqlite+aiosqlite:///reports.db"


def test_flags_go_before_a_profile_and_a_profile_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTBOX_QUEUE", "everything")
    monkeypatch.setenv("OUTBOX_CONCURRENCY", "9")
    profile = WorkerOptions(queue="mail", lease=20)
    flagged = profile.overridden(lease=5)
    assert (flagged.queue, flagged.lease, flagged.concurrency) == (("mail",), 5, 9)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"concurrency": 0}, "concurrency"),
        ({"queue": "Not A Queue"}, "queue"),
        ({"queue": ""}, "at least one queue"),
        ({"backoff": "1,soon"}, "backoff"),
        ({"backoff": "-1"}, "backoff"),
        ({"lease": 0}, "lease"),
        ({"max_tries": 0}, "max_tries"),
    ],
)
def test_a_wrong_value_is_named_with_its_range(given: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        WorkerOptions.load(**given)


def test_a_name_that_no_setting_has_is_refused_and_says_what_was_meant(elsewhere: Path) -> None:
    with pytest.raises(ConfigurationError, match="'concurency'; is 'concurrency' meant"):
        WorkerOptions(concurency=2)
    with pytest.raises(ConfigurationError, match="'databse_url'; is 'database_url' meant"):
        outbox.configure(databse_url="sqlite+aiosqlite:///one.db")
    with pytest.raises(ConfigurationError, match="there is no setting 'colour'$"):
        WorkerOptions.load(colour="red")
    (elsewhere / "pyproject.toml").write_text("[tool.outbox]\nstop-when-empty = true\n")
    for load in (Settings.load, WorkerOptions.load):
        with pytest.raises(ConfigurationError, match=r"pyproject.toml, \[tool.outbox\].*is 'stop_when_empty' meant"):
            load()


def test_a_value_out_of_range_in_code_is_named_as_one_of_a_flag_is() -> None:
    with pytest.raises(ConfigurationError, match=r"^concurrency: .* \(got 0\)$"):
        WorkerOptions(concurrency=0)


def test_a_line_of_env_that_does_not_parse_is_an_error_and_not_the_default_database(elsewhere: Path) -> None:
    (elsewhere / ".env").write_text('# the shop\n\nDATABASE_URL="mysql+asyncmy://root@db/shop\nOUTBOX_JOBS=shop.jobs\n')
    with pytest.raises(ConfigurationError, match=r"/\.env, line 3, is not NAME=value"):
        Settings.load()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("pyproject.toml", b"[tool.outbox\n", "is not TOML"),
        ("pyproject.toml", b'[tool.outbox]\nname = "\xff"\n', "is not UTF-8"),
        ("pyproject.toml", b"[tool]\noutbox = 5\n", "outbox is not a table"),
        (".env", b"OUTBOX_NAME=\xff\n", "is not UTF-8"),
    ],
)
def test_a_broken_file_is_named(elsewhere: Path, name: str, content: bytes, says: str) -> None:
    (elsewhere / name).write_bytes(content)
    for load in (Settings.load, WorkerOptions.load):
        with pytest.raises(ConfigurationError, match=says) as caught:
            load()
        assert str(elsewhere / name) in str(caught.value)


@pytest.mark.parametrize("name", ["pyproject.toml", ".env"])
def test_a_file_that_may_not_be_read_is_named(elsewhere: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (elsewhere / name).touch()
    read = Path.read_text

    def refused(path: Path, encoding: str | None = None) -> str:
        if path.name == name:
            raise PermissionError(13, "Permission denied")
        return read(path, encoding)

    monkeypatch.setattr(Path, "read_text", refused)
    with pytest.raises(ConfigurationError, match=f"{name} cannot be read: Permission denied"):
        Settings.load()


def test_a_directory_named_env_is_none_of_its_business(elsewhere: Path) -> None:
    (elsewhere / ".env").mkdir()
    assert Settings.load().connection == "database"


def test_a_worker_that_is_given_no_name_of_a_connection_does_not_take_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ConfigurationError, match="connection: name at least one connection"):
        WorkerOptions.load(connection="")
    assert WorkerOptions.load(connection=()).connection == ()
    monkeypatch.setenv("OUTBOX_CONNECTION", "")
    assert WorkerOptions.load().connection == ()


def test_connections_that_are_not_json_say_what_to_write(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTBOX_CONNECTIONS", "abc")
    with pytest.raises(ConfigurationError, match="connections.*write JSON"):
        Settings.load()


def test_the_settings_of_dispatch_follow_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "sqlite+aiosqlite:///one.db")
    assert current_settings().database_url.endswith("one.db")
    monkeypatch.setenv("DATABASE_URL", "sqlite+aiosqlite:///two.db")
    assert current_settings().database_url.endswith("two.db")
    outbox.configure(database_url="sqlite+aiosqlite:///given.db")
    assert current_settings().database_url.endswith("given.db")
    outbox.configure()
    assert current_settings().database_url.endswith("two.db")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("nonsense", "mysql\\+asyncmy"),
        ("postgresql+asyncpg://u:secret@h/d", "not in postgresql"),
        ("mysql+pymysql://u:secret@h/d", "asyncmy"),
        ("sqlite+pysqlite:///x.db", "aiosqlite"),
        ("mysql+asyncmy://u:secret@h:abc/d", "is not a database URL"),
        ("mysql+asyncmy://u:secret@h:3306", "names no database: .*host/shop"),
        ("mysql+asyncmy://u:secret@h/d?connect_timeout=abc", "abc"),
        ("mysql+asyncmy://u:secret@h:65536/d", "a port is after the host, from 1 to 65,535"),
        ("mysql+asyncmy://u:secret@h:-1/d", "a port is after the host, from 1 to 65,535"),
        ("mysql+asyncmy://u:secret@h/d?port=3306", "a port is after the host"),
        ("mysql+asyncmy://u:secret@h/d?read_timeout=0", "a read_timeout is more than 0 seconds"),
        ("mysql+asyncmy://u:secret@h/d?bogus=1", "no option 'bogus'"),
        ("sqlite+aiosqlite:///x.db?timeout=abc", "abc"),
    ],
)
def test_a_url_that_cannot_work_says_what_would(url: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as caught:
        open_driver(Settings.load(database_url=url), "database")
    assert str(caught.value).startswith("DATABASE_URL: ")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("driver", "url"), [("database", "nonsense"), ("database", "mysql://h"), ("redis", "nonsense")]
)
def test_a_wrong_url_is_blamed_on_the_connection_that_has_it(elsewhere: Path, driver: str, url: str) -> None:
    (elsewhere / "pyproject.toml").write_text(f'[tool.outbox.connections.x]\ndriver = "{driver}"\nurl = "{url}"\n')
    with pytest.raises(ConfigurationError, match=r"^\[tool.outbox.connections.x\]: ") as caught:
        open_driver(Settings.load(), "x")
    assert "DATABASE_URL" not in str(caught.value)


async def test_the_options_of_a_driver_may_be_in_a_url() -> None:
    url = "mysql+asyncmy://u@h/d?read_timeout=5&charset=utf8mb4&unix_socket=/run/mysqld.sock"
    await open_driver(Settings.load(database_url=url), "database").close()
    await open_driver(Settings.load(database_url="mysql://u@h/?read_default_file=my.cnf"), "database").close()


def test_a_package_for_sqlite_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiosqlite", None)
    monkeypatch.delitem(sys.modules, "outbox.drivers.database.connection.sqlite_engine", raising=False)
    monkeypatch.delattr("outbox.drivers.database.connection.sqlite_engine", raising=False)
    with pytest.raises(ConfigurationError, match="pip install aiosqlite "):
        open_driver(Settings.load(), "database")


async def test_a_url_without_a_driver_gets_the_right_one() -> None:
    driver = open_driver(Settings.load(database_url="sqlite:///x.db"), "database")
    assert driver.description == "sqlite+aiosqlite:///x.db"
    await driver.close()


def test_an_unknown_connection_lists_those_there_are() -> None:
    with pytest.raises(ConfigurationError, match="there are: database"):
        open_driver(Settings.load(), "elsewhere")
