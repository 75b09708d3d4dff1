"""Versions of payloads: old jobs run after the fields of their class have changed."""

from pathlib import Path
from typing import Any

from outbox import Job, upgrade


class SendNewsletter(Job):
    version = 3

    addresses: list[str]
    language: str

    @upgrade(1)  # version 1 had one `address`
    @staticmethod
    def several_addresses(payload: dict[str, Any]) -> dict[str, Any]:
        return {"addresses": [payload["address"]]}

    @upgrade(2)  # version 2 had no `language`
    @staticmethod
    def with_language(payload: dict[str, Any]) -> dict[str, Any]:
        return payload | {"language": "en"}

    def handle(self) -> None:
        with Path("newsletters.log").open("a") as log:
            log.write(f"{self.language}: {', '.join(self.addresses)}\n")
