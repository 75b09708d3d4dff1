"""What failures have in common that are one problem: the type, the message without what differs from one failure to the
next, and the last frame of the application."""

from __future__ import annotations

import re
from hashlib import blake2b

DIGITS = 16
"""Hexadecimal digits of a fingerprint."""

_MESSAGE_READ, _TRACEBACK_READ = 1_000, 16_000
"""Characters: of a message from its beginning, of a traceback up to its end."""

_UUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
_HEX = re.compile(r"\b0[xX][0-9a-fA-F]+\b|\b(?=[0-9a-fA-F]*[0-9])(?=[0-9a-fA-F]*[a-fA-F])[0-9a-fA-F]{6,}\b")
_QUOTED = re.compile(r"\"[^\"\n]*\"|(?<!\w)'[^'\n]*'(?!\w)|`[^`\n]*`|“[^”\n]*”|«[^»\n]*»")
_NUMBER = re.compile(r"\d+")
_SPACE = re.compile(r"\s+")
_FRAME = re.compile(r'^[ |+-]*File "([^"\n]*)", line \d+, in (\S+)', re.MULTILINE)
_FOREIGN = re.compile(r"/(?:site-packages|dist-packages|lib/python\d[\d.]*|lib64/python\d[\d.]*)/|^<|/outbox/")


def is_fingerprint(text: str) -> bool:
    return re.fullmatch(f"[0-9a-f]{{{DIGITS}}}", text) is not None


def normalized(message: str) -> str:
    """The message without quoted text, UUIDs, hexadecimal numbers and digits."""
    text = message[:_MESSAGE_READ]
    for pattern, sign in ((_UUID, "#"), (_QUOTED, "…"), (_HEX, "#"), (_NUMBER, "#")):
        text = pattern.sub(sign, text)
    return _SPACE.sub(" ", text).strip()


def last_frame(traceback: str) -> str:
    """File and function of the last frame that is neither of Python nor of an installed package; of the last one at all
    where there is no other. Without its line, which changes with any edit above it."""
    frames = _FRAME.findall(traceback[-_TRACEBACK_READ:])
    own = [frame for frame in frames if not _FOREIGN.search(frame[0].replace("\\", "/"))] or frames
    if not own:
        return ""
    path, function = own[-1]
    return f"{'/'.join(path.replace(chr(92), '/').split('/')[-2:])}:{function}"


def fingerprint(kind: str, message: str, traceback: str) -> str:
    """The same for all failures of one problem: 16 hexadecimal digits."""
    text = "\n".join((kind, normalized(message), last_frame(traceback)))
    return blake2b(text.encode("utf-8", "surrogateescape"), digest_size=DIGITS // 2).hexdigest()
