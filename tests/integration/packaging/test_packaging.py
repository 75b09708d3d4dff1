"""What `pip install outbox-queue` gives."""

from __future__ import annotations

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(900)

ROOT = Path(__file__).parents[3]

# What the distribution `outbox`, an SMTP client, leaves in site-packages.
OTHER_METADATA = "Metadata-Version: 2.1\nName: outbox\nVersion: 0.1.8\n"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(built), str(ROOT)]
    subprocess.run(build, check=True, timeout=400)
    return next(built.glob("*.whl"))


def test_the_wheel_holds_outbox_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"outbox"}
    assert "outbox/py.typed" in names
    assert "outbox/drivers/redis/scripts/claim.lua" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_wheel_runs_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / "bin" / "python"
    # The pip of here installs there: one of its own would take as long as all that it installs.
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-compile"]
    subprocess.run([*pip, str(wheel)], check=True, timeout=600)
    for command in (["-m", "outbox.work", "--help"], ["-m", "outbox", "--help"]):
        shown = subprocess.run([python, *command], cwd=tmp_path, capture_output=True, text=True, timeout=99, check=True)
        assert "Usage:" in shown.stdout
    refused = subprocess.run(
        [python, "-m", "outbox.work", "--once"],
        cwd=tmp_path,
        env={"DATABASE_URL": "mysql+asyncmy://root@127.0.0.1:1/x", "PATH": ""},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert refused.returncode == 2
    assert "outbox-queue[mysql]" in refused.stderr
    assert "'outbox[" not in refused.stderr


def test_the_other_distribution_called_outbox_is_named(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    (site / "outbox.py").write_text("class Outbox: ...\n")
    (site / "outbox-0.1.8.dist-info").mkdir()
    (site / "outbox-0.1.8.dist-info" / "METADATA").write_text(OTHER_METADATA)
    checked = subprocess.run(
        [sys.executable, "-m", "outbox", "check"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(site), "DATABASE_URL": f"sqlite+aiosqlite:///{tmp_path}/outbox.db", "PATH": ""},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert checked.returncode == 1
    assert "the distribution outbox 0.1.8 is installed beside outbox-queue" in " ".join(checked.stdout.split())
    assert "pip uninstall outbox" in checked.stderr, "the import warns as well"
