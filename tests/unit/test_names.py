"""Names are the terms of the field: private words that were replaced do not come back."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator
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

EXEMPT: dict[str, frozenset[str]] = {
    "outbox/dispatch.py": frozenset({"sealed"}),
    "outbox/drivers/database/claim_scan/cursor_scan.py": frozenset({"census"}),
    "outbox/drivers/database/claim_scan/cursors.py": frozenset({"census", "detour", "lane", "lanes", "trail"}),
    "outbox/drivers/database/claim_scan/probes.py": frozenset({"census"}),
    "outbox/drivers/database/claim_scan/scan_cost.py": frozenset({"dear"}),
    "outbox/drivers/database/connection/database.py": frozenset({"persistence"}),
    "outbox/drivers/database/dialects/mysql.py": frozenset({"lane", "lanes"}),
    "outbox/drivers/database/jobs/next_due.py": frozenset({"census"}),
    "outbox/drivers/database/operations/failed_job_archive.py": frozenset({"keeping"}),
    "outbox/drivers/redis/connection/store.py": frozenset({"persistence"}),
    "outbox/drivers/redis/operations/job_pages.py": frozenset({"lanes"}),
    "outbox/relay/thread.py": frozenset({"farewell", "patience"}),
    "outbox/runtime/claimer.py": frozenset({"keeping"}),
    "outbox/runtime/completer.py": frozenset({"keeping", "patience"}),
    "outbox/runtime/execution/executor.py": frozenset({"patience"}),
    "outbox/runtime/execution/failed_hook.py": frozenset({"patience"}),
    "outbox/runtime/idle_poller.py": frozenset({"outlook"}),
    "outbox/runtime/leases/in_flight.py": frozenset({"lot", "lots"}),
    "outbox/runtime/leases/renewal.py": frozenset({"patience"}),
    "outbox/runtime/refused_settlements.py": frozenset({"patience"}),
    "outbox/runtime/relay_loop.py": frozenset({"patience"}),
    "outbox/runtime/reporting/event_text.py": frozenset({"wording"}),
    "outbox/runtime/worker.py": frozenset({"ears", "emptiness", "lane"}),
    "outbox/sync.py": frozenset({"sealed"}),
    "tests/conformance/test_fields.py": frozenset({"sealed"}),
    "tests/crash/test_redis_crashes.py": frozenset({"standing"}),
    "tests/integration/claiming/test_snapshots.py": frozenset({"dear"}),
    "tests/integration/redis/test_blocking_claims.py": frozenset({"lane", "standing"}),
    "tests/integration/relay/test_relay.py": frozenset({"relaying"}),
    "tests/integration/relay/test_relay_exit.py": frozenset({"farewell"}),
    "tests/integration/relay/test_relay_workers.py": frozenset({"sealed"}),
    "tests/unit/runtime/test_availability.py": frozenset({"patience"}),
    "tests/unit/runtime/test_claimer.py": frozenset({"withdraw"}),
    "tests/unit/runtime/test_completer.py": frozenset({"keeping", "patience"}),
    "tests/unit/runtime/test_nap.py": frozenset({"nap"}),
    "tests/unit/runtime/test_stopping.py": frozenset({"emptiness"}),
    "tests/unit/runtime/test_store_thread.py": frozenset({"presence"}),
    "tests/unit/test_marks.py": frozenset({"census", "lanes"}),
    "tests/unit/test_relay_thread.py": frozenset({"farewell", "patience"}),
    "tests/unit/test_thrift.py": frozenset({"dear", "thrift"}),
}
"""Words that these files still use. An entry goes when its word does."""


def _words(name: str) -> Iterator[str]:
    return (word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name))


def _private_words(path: Path) -> set[str]:
    """Names of tests are sentences, and left out."""
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text()).readline)
    names = {token.string for token in tokens if token.type == tokenize.NAME and not token.string.startswith("test_")}
    return {word for name in (*names, path.stem) for word in _words(name) if word in REPLACED}


def test_no_name_has_a_private_word() -> None:
    found = {str(path.relative_to(ROOT)): _private_words(path) for path in FILES}
    new = {path: words - EXEMPT.get(path, frozenset()) for path, words in found.items()}
    assert found
    assert not {path: {word: REPLACED[word] for word in words} for path, words in new.items() if words}
