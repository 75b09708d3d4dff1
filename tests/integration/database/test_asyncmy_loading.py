"""`cryptography` is loaded when a server asks for what it is needed for, and not before."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
ON_MYSQL = [pytest.param("mysql", marks=pytest.mark.mysql)]
ON_MARIADB = [pytest.param("mariadb", marks=pytest.mark.mariadb)]

CONNECT = """
import asyncio, sys
from outbox.drivers.database import DatabaseDriver

async def main():
    driver = DatabaseDriver(sys.argv[1])
    await driver.check()
    print(driver.description, "cryptography.hazmat.primitives.serialization" in sys.modules)
    await driver.close()

asyncio.run(main())
"""


def run(source: str, *arguments: str) -> str:
    command = [sys.executable, "-c", source, *arguments]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


@pytest.mark.parametrize("backend", ON_MYSQL, indirect=True)
def test_a_password_that_the_server_does_not_remember_is_encrypted_for_it(limited_url: str) -> None:
    assert run(CONNECT, limited_url).endswith("True"), "MySQL did not ask for it, so that nothing was tested"
    assert run(CONNECT, limited_url).endswith("False"), "the server remembers the password now"


@pytest.mark.parametrize("backend", ON_MARIADB, indirect=True)
def test_mariadb_needs_none(limited_url: str) -> None:
    assert run(CONNECT, limited_url).endswith("False")


ELSEWHERE = """
import sys
from outbox.drivers.database.connection.lazy_asyncmy import load_asyncmy

load_asyncmy()
assert "cryptography.hazmat.primitives.hashes" not in sys.modules
import asyncmy.auth
from cryptography.hazmat.primitives import hashes
import cryptography.hazmat.primitives.asymmetric.padding as padding
assert type(hashes) is type(sys), type(hashes)
assert sys.modules["cryptography.hazmat.primitives.asymmetric.padding"] is padding
assert asyncmy.auth.hashes.SHA1 is hashes.SHA1
assert asyncmy.auth.padding.OAEP is padding.OAEP
"""

BEFORE = """
import sys
from cryptography.hazmat.primitives import hashes
from outbox.drivers.database.connection.lazy_asyncmy import load_asyncmy

load_asyncmy()
import asyncmy.auth
assert asyncmy.auth.hashes is hashes
assert sys.modules["cryptography.hazmat.primitives.hashes"] is hashes
"""

NOT_INSTALLED = """
import sys
sys.modules["cryptography"] = None
from outbox.drivers.database.connection.lazy_asyncmy import load_asyncmy

load_asyncmy()
import asyncmy.auth
try:
    asyncmy.auth.sha2_rsa_encrypt(b"secret", b"salt", b"key")
except RuntimeError as error:
    assert "'cryptography' package is required" in str(error)
else:
    raise AssertionError("encrypted by what?")
"""


@pytest.mark.parametrize("source", [ELSEWHERE, BEFORE, NOT_INSTALLED], ids=["elsewhere", "before", "not-installed"])
def test_whoever_else_uses_cryptography_has_it_as_it_is(source: str) -> None:
    run(source)


WORKER = """
import sys
from outbox import work

work.run_worker = lambda *args, **kwargs: 0
work.leave = lambda code: None
work.cli.main([], standalone_mode=False)
assert "application_with_an_engine" in sys.modules
assert "cryptography.hazmat.primitives.serialization" not in sys.modules
"""

APPLICATION = """
from sqlalchemy.ext.asyncio import create_async_engine
from outbox import Job

engine = create_async_engine("mysql+asyncmy://root@127.0.0.1/shop")

class Noop(Job):
    async def handle(self) -> None:
        pass
"""


def test_a_worker_opens_its_connection_before_the_application_loads_asyncmy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "application_with_an_engine.py").write_text(APPLICATION)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("OUTBOX_JOBS", "application_with_an_engine")
    monkeypatch.setenv("DATABASE_URL", "mysql+asyncmy://root@127.0.0.1/shop")
    run(WORKER)
