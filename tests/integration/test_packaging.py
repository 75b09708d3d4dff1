"""What `pip install outbox` gives."""

from __future__ import annotations

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(built), str(ROOT)]
    subprocess.run(build, check=True, timeout=100)
    return next(built.glob("*.whl"))


def test_the_wheel_holds_outbox_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"outbox"}
    assert "outbox/py.typed" in names
    assert "outbox/drivers/redis/scripts/claim.lua" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)


@pytest.mark.timeout(300)
def test_the_wheel_runs_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", wheel], check=True, timeout=240)
    for command in (["-m", "outbox.work", "--help"], ["-m", "outbox", "--help"]):
        shown = subprocess.run([python, *command], cwd=tmp_path, capture_output=True, text=True, timeout=30, check=True)
        assert "Usage:" in shown.stdout
    refused = subprocess.run(
        [python, "-m", "outbox.work", "--once"],
        cwd=tmp_path,
        env={"DATABASE_URL": "mysql+asyncmy://root@127.0.0.1:1/x", "PATH": ""},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert refused.returncode == 2
    assert "outbox[mysql]" in refused.stderr
