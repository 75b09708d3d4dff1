"""Mosquitto, an MQTT broker, which forgets everything when it stops."""

from __future__ import annotations

import os

from tests.servers.local import LocalServer
from tests.servers.programs import which


class Mosquitto(LocalServer):
    kind = "mosquitto"
    remedy = "install mosquitto, start a container engine, or set OUTBOX_TEST_MQTT_URL"

    @classmethod
    def program_on_this_machine(cls) -> str | None:
        return which("mosquitto")

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    def prepare(self) -> None:
        self.data.mkdir()

    def command(self) -> list[str]:
        settings = [f"listener {self.port} 127.0.0.1", "allow_anonymous true", "persistence false"]
        if os.geteuid() == 0:
            settings.append("user root")  # else it becomes a user who cannot reach a temporary directory
        configuration = self.data / "mosquitto.conf"
        configuration.write_text("\n".join(settings) + "\n")
        return [self.program, "-c", str(configuration), *self.options]
