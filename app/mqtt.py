"""An MQTT client that acknowledges when told to, not when a message has merely arrived."""

from typing import Any

import aiomqtt


class Client(aiomqtt.Client):
    """aiomqtt acknowledges a message on receipt, before anybody has worked on it.

    A consumer that dies between this and its commit has lost the message for good: to the broker it
    is delivered. With this client the broker keeps each message until `acknowledge`, and delivers
    it again on the next connection if that never came.
    """

    def __init__(self, hostname: str, port: int = 1883, **options: Any) -> None:
        super().__init__(hostname, port, **options)
        self._client.manual_ack_set(True)

    def acknowledge(self, message: aiomqtt.Message) -> None:
        """Tell the broker that it may forget `message`."""
        self._client.ack(message.mid, message.qos)
