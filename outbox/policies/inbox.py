"""Which messages are the same: those of one source with one id."""

from __future__ import annotations

import hashlib
import re
from typing import NamedTuple
from uuid import UUID

from outbox.errors import InvalidOption

MessageId = str | bytes | int | UUID

_SOURCE = re.compile(r"[\x21-\x7e]{1,64}")


class MessageKey(NamedTuple):
    """The primary key of a received message."""

    source: str
    id_hash: bytes
    """SHA-256 of the id."""


def message_key(message_id: MessageId, source: str) -> MessageKey:
    """An id that is a number or a UUID is that of its text.

    Raises:
        InvalidOption: the id or the source is of a wrong type, or empty; the source is over 64 characters, or has
            others than visible ASCII.
    """
    if isinstance(message_id, bool) or not isinstance(message_id, str | bytes | int | UUID):
        raise InvalidOption(
            f"the id of a message is text, bytes, an int or a UUID, not {type(message_id).__name__}: take what its "
            "sender gives it, and what stays the same when it is delivered again"
        )
    content = message_id if isinstance(message_id, bytes) else str(message_id).encode("utf-8", "surrogatepass")
    if not content:
        raise InvalidOption("the id of a message is empty: all messages without an id would be one")
    if not isinstance(source, str) or not _SOURCE.fullmatch(source):
        raise InvalidOption(f"source: 1 to 64 visible ASCII characters, such as 'mqtt' (got {source!r})")
    return MessageKey(source, hashlib.sha256(content).digest())
