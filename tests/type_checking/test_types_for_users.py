"""An application's code, as mypy without plugins and pyright see it."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import outbox

HERE = Path(__file__).parent
ROOT = Path(outbox.__file__).parents[1]

# The names that the README uses and does not define.
PREAMBLE = """
from __future__ import annotations
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


Errors = dict[int, str]
"""The lines with an error, each with its last message."""


def checked(command: list[str], folder: Path) -> dict[str, Errors]:
    """What a type checker finds in each file of ``folder``."""
    names = sorted(file.name for file in folder.glob("*.py"))
    found = subprocess.run([sys.executable, "-m", *command, *names], cwd=folder, capture_output=True, text=True)
    assert found.returncode in {0, 1}, found.stdout + found.stderr
    errors: dict[str, Errors] = {name: {} for name in names}
    for name, line, message in re.findall(r"(\w+\.py):(\d+):(?:\d+)?.*?error: (.*)", found.stdout):
        errors[name][int(line)] = message
    assert any(errors.values()) == bool(found.returncode), found.stdout + found.stderr
    return errors


def by_mypy(folder: Path) -> dict[str, Errors]:
    flags = ["--strict", "--config-file=", "--show-error-codes", "--cache-dir", str(folder / "cache")]
    return checked(["mypy", *flags], folder)


def by_pyright(folder: Path) -> dict[str, Errors]:
    """Pyright's strict rules. This distribution of it brings its own Node.js; pyright's own downloads one."""
    (folder / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict"}')
    return checked(["basedpyright", "--pythonpath", sys.executable], folder)


# Most of what a checker does is to read outbox and the libraries: it looks at all files at once.
CHECKERS = [pytest.param(check, marks=pytest.mark.xdist_group(check.__name__)) for check in (by_mypy, by_pyright)]


@pytest.fixture(scope="session", params=CHECKERS)
def errors(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Errors]:
    """Of each file. They stand beside no configuration but that of the test."""
    folder = tmp_path_factory.mktemp("checked")
    for name in ("shop_jobs.py", "mistakes.py"):
        (folder / name).write_text((HERE / name).read_text())
    (folder / "readme.py").write_text(code_of_the_readme())
    found: dict[str, Errors] = request.param(folder)
    return found


def code_of_the_readme() -> str:
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
    return "\n".join([PREAMBLE, *statements, *functions])


def test_what_an_application_writes_has_no_type_errors(errors: dict[str, Errors]) -> None:
    assert errors["shop_jobs.py"] == {}


def test_mistakes_are_type_errors(errors: dict[str, Errors]) -> None:
    lines = (HERE / "mistakes.py").read_text().splitlines()
    mistakes = [number for number, line in enumerate(lines, 1) if "# mistake" in line]
    assert sorted(errors["mistakes.py"]) == mistakes


def test_the_code_of_the_readme_has_no_type_errors(errors: dict[str, Errors]) -> None:
    found = errors["readme.py"]
    unused = {number for number, message in found.items() if "reportUnused" in message or "is not accessed" in message}
    assert {number: message for number, message in found.items() if number not in unused} == {}, code_of_the_readme()
