"""Names are the terms of the field: private words that were replaced do not come back."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILES = [path for root in ("outbox", "tests", "benchmarks") for path in sorted((ROOT / root).rglob("*.py"))]

REPLACED = {
    "bells": "listener",
    "census": "worker count",
    "dear": "expensive",
    "detour": "rewind",
    "doubts": "unconfirmed",
    "eagerness": "wakeup backoff",
    "ears": "wakeup service",
    "emptiness": "stop when empty",
    "farewell": "flush at exit",
    "keeping": "failed job archive",
    "lane": "consumer, priority cursor",
    "lanes": "consumers, priority cursors",
    "lot": "claim batch",
    "lots": "batches",
    "mended": "fixed jobs",
    "messenger": "pubsub",
    "nap": "idle poller",
    "onward": "from relay row",
    "outlook": "next due",
    "outward": "to relay row",
    "packing": "encoding",
    "parking": "cross slot",
    "patience": "reconnect backoff, cancel steps",
    "persistence": "retry budget",
    "presence": "heartbeat",
    "relaying": "relay loop",
    "rung": "notified",
    "seal": "serialize",
    "sealed": "serialized",
    "shopkeeper": "dispatching app",
    "standing": "blocking claim",
    "switchboard": "local hub",
    "tally": "counters",
    "tether": "die with parent",
    "thrift": "scan cost",
    "trail": "recent positions",
    "unseal": "deserialize",
    "unsent": "has unrelayed",
    "waking": "wakeup selector",
    "whereabouts": "job locator",
    "withdraw": "cancel blocking claim",
    "wording": "event text",
    "zoo": "failing jobs",
}
"""Words of names, and the terms that have replaced them."""


_IDENTIFIER = re.compile(r"[^\W\d]\w*")


def _words(name: str) -> Iterator[str]:
    return (word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name))


def _private_words(path: Path) -> set[str]:
    text = path.read_text()
    # To tell names from comments and strings takes long, and most files have none of the words anywhere.
    if not _replaced(path, _IDENTIFIER.findall(text)):
        return set()
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return _replaced(path, (token.string for token in tokens if token.type == tokenize.NAME))


def _replaced(path: Path, names: Iterable[str]) -> set[str]:
    """Names of tests are sentences, and left out."""
    checked = {name for name in names if not name.startswith("test_")} | {path.stem}
    return {word for name in checked for word in _words(name) if word in REPLACED}


def test_no_name_has_a_private_word() -> None:
    found = {str(path.relative_to(ROOT)): _private_words(path) for path in FILES}
    assert found
    assert not {path: {word: REPLACED[word] for word in words} for path, words in found.items() if words}
