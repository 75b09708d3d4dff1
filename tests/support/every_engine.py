"""What SQLAlchemy sends, over any engine of the process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Engine, event


@contextmanager
def before_each_statement(note: Callable[..., Any]) -> Iterator[None]:
    """Call ``note`` with the arguments of SQLAlchemy's event ``before_cursor_execute``."""
    with listening(before_cursor_execute=note):
        yield


@contextmanager
def listening(**listeners: Callable[..., Any]) -> Iterator[None]:
    """Add ``listeners``, by the name of their event, to every engine."""
    with pytest.MonkeyPatch.context() as patch:
        # Engines would be taken for ones with listeners from now on, in all tests of this process.
        patch.setattr(Engine, "_has_events", False)
        for name, listener in listeners.items():
            event.listen(Engine, name, listener)
        try:
            yield
        finally:
            for name, listener in listeners.items():
                event.remove(Engine, name, listener)
