"""Where outbox is run: hosts, locales, directories and containers other than usual."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import outbox
from tests.servers import databases
from tests.support.worker_processes import ROOT

JOBS = """
from outbox import Job

class Note(Job):
    text: str = "caf\\u00e9 \\u2615"

    def handle(self) -> None:
        print("ran", self.text, flush=True)
"""
DISPATCH = (
    "import shop_jobs; from outbox.sync import dispatch; {0}dispatch(shop_jobs.Note()); dispatch(shop_jobs.Note())"
)
WORK = ("-m", "outbox.work", "--stop-when-empty", "--sleep", "0.05")


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """Where the application is; readable for every user."""
    directory = tmp_path / "shop"
    directory.mkdir()
    (directory / "shop_jobs.py").write_text(JOBS, encoding="utf-8")
    return directory


def run(
    shop: Path,
    *arguments: str,
    url: str | None = None,
    prefix: Sequence[str] = (),
    preexec: Callable[[], object] | None = None,
    **more: str,
) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{ROOT}:{shop}",
        "OUTBOX_JOBS": "shop_jobs",
        "PYTHONDONTWRITEBYTECODE": "1",
        **({} if url is None else {"DATABASE_URL": url}),
        **more,
    }
    return subprocess.run(
        [*prefix, sys.executable, *arguments],
        cwd=shop,
        env=environment,
        capture_output=True,
        timeout=60,
        check=False,
        preexec_fn=preexec,
        stdin=subprocess.DEVNULL,
        encoding="utf-8",
        errors="replace",
    )


def migrated(directory: Path) -> str:
    url = databases.fresh_file(directory)
    databases.create_tables(url, outbox.metadata)
    return url


def traceless(ran: subprocess.CompletedProcess[str]) -> str:
    assert "Traceback" not in ran.stdout + ran.stderr, ran.stderr
    return ran.stdout + ran.stderr


# --- no DATABASE_URL


def test_a_process_that_dispatches_without_a_database_url_says_so_once(shop: Path) -> None:
    migrated(shop)
    ran = run(shop, "-c", DISPATCH.format(""))
    assert ran.returncode == 0
    assert ran.stderr.splitlines() == ["DATABASE_URL is not set; using sqlite+aiosqlite:///outbox.db"]


def test_its_errors_say_so_and_no_empty_file_is_left(shop: Path) -> None:
    ran = run(shop, "-c", DISPATCH.format(""))
    last = ran.stderr.strip().splitlines()[-1]
    assert last.startswith("outbox.errors.TablesMissing: ")
    assert "DATABASE_URL is not set" in last
    for command in (("-m", "outbox", "stats"), ("-m", "outbox", "failed"), ("-m", "outbox", "check"), WORK):
        ran = run(shop, *command)
        assert ran.returncode in {1, 2}
        assert "DATABASE_URL is not set" in traceless(ran)
    assert [path.name for path in shop.iterdir()] == ["shop_jobs.py"]


def test_no_file_is_made_where_the_url_names_none_either(shop: Path) -> None:
    ran = run(shop, "-m", "outbox", "stats", url="sqlite+aiosqlite:///other.db")
    assert ran.returncode == 2
    assert "alembic upgrade head" in traceless(ran)
    assert "DATABASE_URL is not set" not in ran.stderr
    assert not (shop / "other.db").exists()


# --- directories and files


def test_a_deploy_that_removed_the_working_directory_stops_nothing(shop: Path, tmp_path: Path) -> None:
    gone, url = tmp_path / "gone", migrated(tmp_path)

    def in_a_directory_that_is_gone() -> None:
        gone.mkdir()
        os.chdir(gone)
        gone.rmdir()

    remove = "import os, shutil; os.mkdir('x'); os.chdir('x'); os.rmdir(os.getcwd()); "
    ran = run(shop, "-c", DISPATCH.format(remove), url=url)
    assert (ran.returncode, ran.stderr) == (0, "")
    for command, said in ((("-m", "outbox", "stats"), "default"), (WORK, "2 processed")):
        ran = run(shop, *command, url=url, preexec=in_a_directory_that_is_gone)
        assert ran.returncode == 0, ran.stderr
        assert said in traceless(ran)


# --- users, locales, environments


@pytest.mark.parametrize("locale", ["C", "POSIX", "de_DE.ISO-8859-1", "nonsense"])
def test_any_locale_will_do(shop: Path, tmp_path: Path, locale: str) -> None:
    url = migrated(tmp_path)
    more = {"LC_ALL": locale, "LANG": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    assert run(shop, "-c", DISPATCH.format(""), url=url, **more).returncode == 0
    ran = run(shop, "-m", "outbox", "stats", url=url, **more)
    assert ran.returncode == 0
    ran = run(shop, *WORK, url=url, **more)
    assert ran.returncode == 0
    assert "2 processed" in traceless(ran)


def test_a_container_user_without_a_name_a_home_or_a_temporary_directory_will_do(shop: Path, tmp_path: Path) -> None:
    as_nobody_known = ("unshare", "--user", "--map-user=54321", "--map-group=54321", "--")
    if shutil.which("unshare") is None or subprocess.run([*as_nobody_known, "true"], check=False).returncode:
        pytest.skip("this machine makes no user namespaces")
    url = migrated(tmp_path)
    more = {"TMPDIR": "/proc/nowhere", "HOME": "/proc/nowhere"}
    for arguments in (("-c", DISPATCH.format("")), ("-m", "outbox", "check"), (*WORK, "--processes", "2")):
        ran = run(shop, *arguments, url=url, prefix=as_nobody_known, preexec=lambda: os.umask(0o777), **more)
        assert ran.returncode == 0, ran.stderr
        traceless(ran)


# --- libraries that patch Python


PATCHES = {
    "gevent": "from gevent import monkey; monkey.patch_all()",
    "eventlet": "import eventlet; eventlet.monkey_patch()",
}


@pytest.mark.parametrize("library", PATCHES)
def test_a_worker_in_patched_python_is_refused_in_one_line(shop: Path, tmp_path: Path, library: str) -> None:
    pytest.importorskip(library)
    (shop / "patched.py").write_text(PATCHES[library] + "\n")
    ran = run(shop, *WORK, url=migrated(tmp_path), OUTBOX_JOBS="patched,shop_jobs")
    assert ran.returncode == 2
    # eventlet has a lot to say when it is imported.
    said = ran.stderr if library == "eventlet" else traceless(ran)
    assert said.strip().splitlines()[-1].startswith(f"outbox.work: {library} has replaced")
    assert "outbox/work.py" not in said


@pytest.mark.parametrize("library", PATCHES)
def test_dispatching_from_patched_python_works(shop: Path, tmp_path: Path, library: str) -> None:
    pytest.importorskip(library)
    url = migrated(tmp_path)
    ran = run(shop, "-c", f"{PATCHES[library]}; {DISPATCH.format('')}", url=url)
    assert ran.returncode == 0, ran.stderr
    ran = run(shop, *WORK, url=url)
    assert "2 processed" in traceless(ran)
