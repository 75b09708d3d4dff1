"""An application's code, as mypy without plugins and pyright see it."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

import outbox

HERE = Path(__file__).parent
ROOT = Path(outbox.__file__).parents[1]

# The names that the README uses and does not define.
PREAMBLE = """
from __future__ import annotations
import outbox
from outbox import dispatch, dispatch_many
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

class Base(DeclarativeBase): ...
class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)

order: Order
Session: async_sessionmaker[AsyncSession]
session: AsyncSession
async def send_mail(order_id: int) -> None: ...
"""


def lines_with_errors(command: list[str], file: Path) -> dict[int, str]:
    """The lines of ``file`` in which a type checker finds an error, each with its last message."""
    found = subprocess.run([sys.executable, "-m", *command, file.name], cwd=file.parent, capture_output=True, text=True)
    assert found.returncode in {0, 1}, found.stdout + found.stderr
    pattern = re.compile(rf"{re.escape(file.name)}:(\d+):(?:\d+)?.*?error: (.*)")
    errors = {int(line): message for line, message in pattern.findall(found.stdout)}
    assert bool(errors) == bool(found.returncode), found.stdout + found.stderr
    return errors


def by_mypy(file: Path, cache: Path) -> dict[int, str]:
    flags = ["--strict", "--config-file=", "--show-error-codes", "--cache-dir", str(cache)]
    return lines_with_errors(["mypy", *flags], file)


def by_pyright(file: Path, cache: Path) -> dict[int, str]:
    """Pyright's strict rules. This distribution of it brings its own Node.js; pyright's own downloads one."""
    (file.parent / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict"}')
    return lines_with_errors(["basedpyright", "--pythonpath", sys.executable], file)


Checker = Callable[[Path], dict[int, str]]
# What mypy has found out of outbox and the libraries is for all tests.
CHECKERS = [pytest.param(by_mypy, marks=pytest.mark.xdist_group("mypy")), by_pyright]


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mypy")


@pytest.fixture(params=CHECKERS)
def check(request: pytest.FixtureRequest, cache: Path) -> Checker:
    return partial(request.param, cache=cache)


def copied(name: str, folder: Path) -> Path:
    """Beside no configuration but that of the test."""
    file = folder / name
    file.write_text((HERE / name).read_text())
    return file


def test_what_an_application_writes_has_no_type_errors(check: Checker, tmp_path: Path) -> None:
    assert check(copied("shop_jobs.py", tmp_path)) == {}


def test_mistakes_are_type_errors(check: Checker, tmp_path: Path) -> None:
    file = copied("mistakes.py", tmp_path)
    mistakes = [number for number, line in enumerate(file.read_text().splitlines(), 1) if "# mistake" in line]
    assert sorted(check(file)) == mistakes


def test_the_code_of_the_readme_has_no_type_errors(check: Checker, tmp_path: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    statements = [block for block in blocks if not re.search(r"^(await|async with) ", block, re.MULTILINE)]
    awaiting = [block for block in blocks if block not in statements]
    assert statements
    assert awaiting
    functions = [
        f"async def part_{number}(jobs: list[SendReceipt]) -> None:\n{textwrap.indent(block, '    ')}"
        for number, block in enumerate(awaiting)
    ]
    # An import in a block that awaits is for all of those that follow it.
    file = tmp_path / "readme.py"
    file.write_text("\n".join([PREAMBLE, *statements, *functions]))
    errors = check(file)
    unused = {number for number, message in errors.items() if "reportUnused" in message or "is not accessed" in message}
    assert {number: message for number, message in errors.items() if number not in unused} == {}, file.read_text()
