"""The request that a worker claims nothing for a while."""

from __future__ import annotations


class PauseRequest:
    """Kept by the worker, made and ended by its signal handlers, and read by the claimers of all connections."""

    def __init__(self) -> None:
        self.active = False

    def begin(self) -> None:
        self.active = True

    def end(self) -> None:
        self.active = False
