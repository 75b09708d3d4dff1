"""What the run log says: which jobs ran, how often, in which process, and how each run ended."""

from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

from app.runlog import Line, parse


@dataclass
class Run:
    """One run of a job. `outcome` is None while it runs, and for good if its process died."""

    process: int
    job: str
    began: float
    outcome: str | None = None


class Witness:
    """Follows the run log as it grows."""

    def __init__(self, directory: Path) -> None:
        self.runs: defaultdict[str, list[Run]] = defaultdict(list)
        self.ended: set[str] = set()
        self.first_ended: dict[str, float] = {}
        """When each job came to its end for the first time."""
        self.ended_by_job: Counter[str] = Counter()
        self.directory = directory
        self._offsets: defaultdict[Path, int] = defaultdict(int)

    def look(self) -> None:
        """Take in what has been written since the last look."""
        for path in self.directory.glob("*.log"):
            with path.open("rb") as file:
                file.seek(self._offsets[path])
                text = file.read()
            whole = text[: text.rfind(b"\n") + 1]  # the last line may still be on its way
            self._offsets[path] += len(whole)
            for line in whole.decode("ascii").splitlines():
                self._take(parse(int(path.stem), line))

    def _take(self, line: Line) -> None:
        runs = self.runs[line.job_id]
        if line.event == "began":
            runs.append(Run(line.process, line.job, line.moment))
            return
        mine = next(r for r in reversed(runs) if r.process == line.process and r.outcome is None)
        mine.outcome = line.event
        if line.event == "ended":
            self.first_ended[line.job_id] = min(line.moment, self.first_ended.get(line.job_id, line.moment))
        if line.event == "ended" and line.job_id not in self.ended:
            self.ended.add(line.job_id)
            self.ended_by_job[line.job] += 1

    def busy(self) -> Counter[int]:
        """The processes that have been seen, and how many runs each has begun and not ended."""
        counts: Counter[int] = Counter()
        for runs in self.runs.values():
            for run in runs:
                counts[run.process] += run.outcome is None
        return counts
