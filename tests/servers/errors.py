"""What can go wrong between a test and its server."""


class ServerMissingError(Exception):
    """Nothing provides a server of this kind here: its tests cannot run."""

    def __init__(self, kind: str, remedy: str) -> None:
        super().__init__(kind, remedy)
        self.kind = kind
        self.remedy = remedy

    def __str__(self) -> str:
        return f"no {self.kind} server: {self.remedy}"


class ServerFailedError(Exception):
    """A server that should be there does not start or does not answer: never a reason to skip."""
