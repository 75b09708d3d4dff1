"""What can go wrong between a test and its server."""


class ServerMissingError(Exception):
    """Nothing provides a server of this kind here: its tests cannot run."""

    def __init__(self, kind: str, remedy: str) -> None:
        super().__init__(f"no {kind} server: {remedy}")
        self.kind = kind


class ServerFailedError(Exception):
    """A server that should be there does not start or does not answer: never a reason to skip."""
