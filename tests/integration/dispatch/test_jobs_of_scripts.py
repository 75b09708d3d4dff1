"""Jobs that are defined in the script that dispatches them, and generic ones: a worker runs them, or the dispatch is
refused."""

from __future__ import annotations

import os
import subprocess
import textwrap
from pathlib import Path

from tests.support.python_process import run_python

JOBS = """
    from typing import Generic, TypeVar
    from pydantic import BaseModel
    from outbox import Job
    from outbox.sync import dispatch

    T = TypeVar("T")

    class Order(BaseModel):
        number: int

    class Import(Job, Generic[T]):
        rows: list[T]

        def handle(self):
            open("ran", "w").write(repr(self.rows))

    class ImportOrders(Import[Order]):
        pass

    class Hello(Job):
        {name}

        def handle(self):
            open("ran", "w").write("hello")

    if __name__ == "__main__":
        dispatch(Hello())
"""


def run(url: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OUTBOX_")}
    settings = {"DATABASE_URL": url, "OUTBOX_JOBS": "script_jobs", "PYTHONPATH": str(folder)}
    return run_python(*arguments, cwd=folder, env=kept | settings, check=False)


def ran(url: str, folder: Path) -> str | None:
    """What a worker wrote, once nothing is left to do."""
    worker = run(url, folder, "-m", "outbox.work", "--stop-when-empty")
    assert worker.returncode == 0, worker.stdout + worker.stderr
    written = folder / "ran"
    return written.read_text() if written.exists() else None


def script(folder: Path, name: str = "") -> Path:
    path = folder / "script_jobs.py"
    path.write_text(textwrap.dedent(JOBS.format(name=name)))
    return path


def test_a_job_of_a_script_runs_where_workers_import_the_script(migrated_url: str, tmp_path: Path) -> None:
    for dispatching in ([str(script(tmp_path))], ["-m", "script_jobs"]):
        dispatched = run(migrated_url, tmp_path, *dispatching)
        assert dispatched.returncode == 0, dispatched.stderr
        assert ran(migrated_url, tmp_path) == "hello"
        (tmp_path / "ran").unlink()


def test_a_script_that_was_imported_as_a_module_as_well_dispatches_its_jobs(migrated_url: str, tmp_path: Path) -> None:
    path = script(tmp_path)
    path.write_text(path.read_text().replace("    dispatch(Hello())", "    import script_jobs\n    dispatch(Hello())"))
    dispatched = run(migrated_url, tmp_path, str(path))
    assert dispatched.returncode == 0, dispatched.stderr
    assert ran(migrated_url, tmp_path) == "hello"


def test_a_job_of_code_that_is_no_file_is_refused(migrated_url: str, tmp_path: Path) -> None:
    code = textwrap.dedent(JOBS.format(name=""))
    refused = run(migrated_url, tmp_path, "-c", code)
    assert refused.returncode == 1
    assert (
        "InvalidJob: __main__.Hello cannot be run by a worker: it is defined in code that is no file" in refused.stderr
    )


def test_a_job_of_a_script_runs_under_a_pinned_name(migrated_url: str, tmp_path: Path) -> None:
    dispatched = run(migrated_url, tmp_path, str(script(tmp_path, 'name = "shop.Hello"')))
    assert dispatched.returncode == 0, dispatched.stderr
    assert ran(migrated_url, tmp_path) == "hello"


def test_a_generic_job_runs_where_its_module_parametrises_it(migrated_url: str, tmp_path: Path) -> None:
    script(tmp_path)
    start = "import script_jobs as s; s.dispatch(s."
    refused = run(migrated_url, tmp_path, "-c", f"{start}Import[int](rows=[7]))")
    assert refused.returncode == 1
    assert "Import[int] cannot be run by a worker: it is parametrised outside the module script_jobs" in refused.stderr
    assert ran(migrated_url, tmp_path) is None
    for known in ("ImportOrders", "Import[s.Order]"):
        dispatched = run(migrated_url, tmp_path, "-c", f"{start}{known}(rows=[s.Order(number=7)]))")
        assert dispatched.returncode == 0, dispatched.stderr
        assert ran(migrated_url, tmp_path) == "[Order(number=7)]"
        (tmp_path / "ran").unlink()
