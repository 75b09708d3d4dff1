"""`alembic upgrade head`, killed after COUNT changes of outbox's tables.

``python -m tests.support.dying_migration COUNT``
"""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, event

_CHANGES = re.compile(r"\s*(CREATE|ALTER) .*\bqueue_", re.DOTALL)


def main(count: int) -> None:
    left = count

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        nonlocal left
        left -= bool(_CHANGES.match(statement))
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(Engine, "after_cursor_execute", note)
    command.upgrade(Config(Path(__file__).parents[2] / "alembic.ini"), "head")


if __name__ == "__main__":
    main(int(sys.argv[1]))
