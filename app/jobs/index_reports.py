"""The page that lists the charts of a month."""

from html import escape
from pathlib import Path

from pydantic import Field

from app import runlog
from app.jobs.generate_report import write_atomically
from app.settings import settings
from outbox import Job


class IndexReports(Job):
    """Writes `index-<year>-<month>.html` when the charts of the month are there."""

    name = "app.IndexReports"
    queue = "reports"
    max_tries = 3

    year: int = Field(ge=1900, le=9998)
    month: int = Field(ge=1, le=12)

    def handle(self) -> None:
        with runlog.run(self):
            charts = sorted(path.name for path in settings().reports_dir.glob(f"*-{self._suffix}.svg"))
            items = "".join(f'<li><a href="{escape(name)}">{escape(name)}</a></li>\n' for name in charts)
            write_atomically(self.path, f"<!doctype html>\n<title>Reports {self._suffix}</title>\n<ul>\n{items}</ul>\n")

    @property
    def path(self) -> Path:
        return settings().reports_dir / f"index-{self._suffix}.html"

    @property
    def _suffix(self) -> str:
        return f"{self.year}-{self.month:02}"
