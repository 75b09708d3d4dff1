"""What a server's administrator has made the default, or has forbidden: it works, or it is refused in one line."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import make_url

import outbox
from outbox.drivers.database import DatabaseDriver
from outbox.drivers.values import WorkerStatus
from outbox.errors import BackendUnavailable, ConfigurationError, OutboxError
from outbox.settlement import Settlement
from tests.conformance.jobs import FAILURE, envelopes
from tests.servers import LocalServer, databases, sql

WORKER = WorkerStatus(b"w" * 16, "name", "host", 1, "default", 1, 0, 0, 0)

EVERYWHERE = {
    "autocommit": "0",
    "character_set_server": "latin1",
    "completion_type": "2",
    "explicit_defaults_for_timestamp": "0",
    "foreign_key_checks": "0",
    "init_connect": "'SET sql_mode = ''ANSI_QUOTES'', SESSION completion_type = 1'",
    "innodb_lock_wait_timeout": "1",
    "interactive_timeout": "1",
    "sql_mode": "'ANSI_QUOTES,NO_BACKSLASH_ESCAPES,PIPES_AS_CONCAT,ONLY_FULL_GROUP_BY,PAD_CHAR_TO_FULL_LENGTH'",
    "sql_safe_updates": "1",
    "sql_select_limit": "1",
    "max_join_size": "1",
    "time_zone": "'+09:00'",
    "unique_checks": "0",
    "wait_timeout": "1",
}
SETTINGS = {
    "mysql": {
        "default_collation_for_utf8mb4": "utf8mb4_general_ci",
        "sql_require_primary_key": "1",
        "transaction_isolation": "'SERIALIZABLE'",
        "transaction_read_only": "1",
    },
    "mariadb": {"tx_isolation": "'SERIALIZABLE'", "tx_read_only": "1", "binlog_format": "MIXED"},
}


async def every_kind_of_statement(url: str) -> None:
    driver = DatabaseDriver(url)
    await driver.check()
    await driver.jobs.insert(envelopes(40))
    await driver.workers.heartbeat(WORKER)
    await driver.workers.heartbeat(WORKER)
    assert await driver.workers.forget(600) == 0
    claims = await driver.jobs.claim(["default", "other"], 20, 30)
    claims += await driver.short_jobs.claim(["default"], 20, 30)
    assert len(claims) == 40
    fences = [claim.fence for claim in claims]
    assert len((await driver.jobs.extend(fences, 30)).kept) == 40
    ends = [
        *(Settlement.completed(fence) for fence in fences[:10]),
        *(Settlement.failed(fence, FAILURE) for fence in fences[10:20]),
        *(Settlement.retried(fence, 0, FAILURE) for fence in fences[20:30]),
        *(Settlement.snoozed(fence) for fence in fences[30:]),
    ]
    assert len((await driver.jobs.settle(ends)).accepted) == 40
    assert (await driver.jobs.next_due(["default"])).due is not None
    [counts] = await driver.queues.counts()
    assert (counts.ready, counts.failed) == (20, 10)
    assert len(await driver.failed.page()) == 10
    assert await driver.failed.retry_all() == 10
    assert await driver.queues.clear("default") == 30
    await driver.workers.deregister(WORKER.id)
    assert await driver.workers.all() == []
    await driver.close()


async def test_whatever_the_defaults_of_a_server_are_all_of_it_works(local_database: LocalServer) -> None:
    # This connection has the server's own defaults to its end.
    with sql.connection(local_database.url) as operator:
        operator.exec_driver_sql("CREATE DATABASE jobs")
        operator.exec_driver_sql("CREATE USER shop@'%%' IDENTIFIED BY 'secret'")
        operator.exec_driver_sql("GRANT ALL ON jobs.* TO shop@'%%'")
        admin = make_url(f"{local_database.url}/jobs")
        databases.create_tables(admin.render_as_string(hide_password=False), outbox.metadata)
        url = admin.set(username="shop", password="secret").render_as_string(hide_password=False)
        for name, value in {**EVERYWHERE, **SETTINGS[local_database.kind]}.items():
            operator.exec_driver_sql(f"SET GLOBAL {name} = {value}")
        await every_kind_of_statement(url)


async def refusal(url: str) -> OutboxError:
    driver = DatabaseDriver(url)
    try:
        async with asyncio.timeout(30):
            with pytest.raises(OutboxError) as caught:
                await driver.check()
                await driver.jobs.insert(envelopes(1))
    finally:
        await driver.close()
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)
    return caught.value


async def test_what_no_worker_can_work_with_is_refused_in_one_line(local_mysql: LocalServer) -> None:
    with sql.connection(local_mysql.url) as operator:
        operator.exec_driver_sql("CREATE DATABASE jobs")
        operator.exec_driver_sql("CREATE USER shop@'%%' IDENTIFIED WITH caching_sha2_password BY 'secret'")
        operator.exec_driver_sql("GRANT ALL ON jobs.* TO shop@'%%'")
        admin = f"{local_mysql.url}/jobs"
        databases.create_tables(admin, outbox.metadata)
        url = make_url(admin).set(username="shop", password="secret").render_as_string(hide_password=False)
        await every_kind_of_statement(url)

        operator.exec_driver_sql("SET GLOBAL binlog_format = 'STATEMENT'")
        error = await refusal(url)
        assert isinstance(error, ConfigurationError)
        assert "set binlog_format to ROW" in str(error)
        operator.exec_driver_sql("SET GLOBAL binlog_format = 'ROW'")

        operator.exec_driver_sql("SET GLOBAL require_secure_transport = ON")
        error = await refusal(url)
        assert isinstance(error, ConfigurationError)
        assert "insecure transport" in str(error)
        operator.exec_driver_sql("SET GLOBAL require_secure_transport = OFF")

        for option, said in {
            "init_command=nonsense": "an option of the URL is refused",
            f"ssl_ca={ca_of_another(local_mysql)}": "certificate",
        }.items():
            error = await refusal(f"{url}?{option}")
            assert isinstance(error, ConfigurationError), error
            assert said in str(error)

        error = await refusal(url.replace("mysql+", "mariadb+"))
        assert isinstance(error, ConfigurationError), error
        assert "mysql+asyncmy" in str(error)

        operator.exec_driver_sql("SET GLOBAL super_read_only = ON")
        assert isinstance(await refusal(url), BackendUnavailable)
        operator.exec_driver_sql("SET GLOBAL super_read_only = OFF")
        operator.exec_driver_sql("SET GLOBAL read_only = OFF")
        await every_kind_of_statement(url)


def ca_of_another(server: LocalServer) -> Path:
    """A certificate that has not signed the server's."""
    return Path(__file__).parent / "files" / "another_ca.pem"


@pytest.mark.parametrize(
    "option",
    [
        "ssl=true",
        "ssl=1",
        "ssl_ca=/no/such.pem",
        "ssl_ca=/etc/hostname",
        "ssl_cert=/no/such.pem",
        "ssl_cipher=none",
    ],
)
@pytest.mark.parametrize("scheme", ["mysql", "mariadb", "mysql+asyncmy"])
def test_tls_options_that_can_never_work_are_refused_before_anything_is_tried(scheme: str, option: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        DatabaseDriver(f"{scheme}://shop:secret@localhost/shop?{option}")
    assert "secret" not in str(caught.value)
    assert option.partition("=")[0] in str(caught.value)
