"""A mail server for the demonstration: keeps count of what it is given, and is sometimes busy."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from email.parser import BytesHeaderParser

from aiosmtpd.smtp import SMTP, Envelope, Session

BUSY_EVERY = 25


class Mailbox:
    """Accepted messages. Each 25th message is put off once, as by a busy or greylisting server."""

    def __init__(self) -> None:
        self.copies: Counter[str] = Counter()
        """How often each Message-ID was delivered."""
        self.recipients: set[str] = set()
        self.put_off: set[str] = set()
        self._seen: set[str] = set()

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        """aiosmtpd's hook for a complete message; returns the SMTP reply."""
        content = envelope.content
        headers = BytesHeaderParser().parsebytes(content if isinstance(content, bytes) else b"")
        message_id = headers["Message-ID"]
        if self._is_busy(message_id):
            self.put_off.add(message_id)
            return "451 4.3.2 busy, please try again later"
        self.copies[message_id] += 1
        self.recipients.update(envelope.rcpt_tos)
        return "250 2.0.0 accepted"

    def _is_busy(self, message_id: str) -> bool:
        first_time = message_id not in self._seen
        self._seen.add(message_id)
        return first_time and len(self._seen) % BUSY_EVERY == 0


@asynccontextmanager
async def serve(mailbox: object) -> AsyncIterator[int]:
    """Serve SMTP on a free port of the loopback interface, with `mailbox` as aiosmtpd's handler; gives the port."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(mailbox, loop=loop), "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(5):
                await server.wait_closed()
