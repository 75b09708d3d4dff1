"""What a worker says of the modules of `OUTBOX_JOBS` when it starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.worker_processes import Workers

BROKEN = {
    "syntax": ("class Hello(:\n", "line 1"),
    "missing module": ("\nimport no_such_module\n", "line 2"),
    "in a function": ("def make():\n    return 1 / 0\n\nmake()\n", "line 2"),
    "an option": (
        "from outbox import Job\n\nclass Hello(Job):\n    priority = 42\n",
        "line 3",
    ),
}


@pytest.fixture
def backend() -> str:
    return "sqlite"


@pytest.mark.parametrize(("source", "line"), BROKEN.values(), ids=BROKEN)
async def test_a_module_that_cannot_be_imported_is_named_with_its_line(
    migrated_url: str, tmp_path: Path, source: str, line: str
) -> None:
    (tmp_path / "broken_jobs.py").write_text(source)
    workers = Workers(migrated_url, tmp_path, "broken_jobs")
    try:
        worker = await workers.start()
        assert await worker.exit_code() == 2
        said = "".join(worker.other)
        assert "broken_jobs.py" in said
        assert line in said
        assert said.count("\n") == 1
    finally:
        await workers.close()


async def test_a_worker_whose_queues_fit_no_job_class_says_so(migrated_url: str, tmp_path: Path) -> None:
    (tmp_path / "mail_jobs.py").write_text(
        "from outbox import Job\n\nclass Mail(Job):\n    queue = 'mail'\n    def handle(self): ...\n"
    )
    workers = Workers(migrated_url, tmp_path, "mail_jobs")
    try:
        for queue, warned in (("default", True), ("default,mail", False)):
            worker = await workers.started("--queue", queue)
            messages = [event["message"] for event in worker.of("log")]
            assert (
                any("drains default, and the job classes that it knows are for mail" in m for m in messages) is warned
            )
            assert await worker.terminate() == 0
    finally:
        await workers.close()
