"""The link from a job to the trace of its dispatch."""

from __future__ import annotations

import re
from collections.abc import Mapping

from outbox.errors import ConfigurationError

PLACE = "{trace_id}"
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}.*")


def check_trace_url(url: str | None) -> str | None:
    """
    Raises:
        ConfigurationError: it is no address of the web, or has no place for the id.
    """
    if url is None:
        return None
    if not url.startswith(("https://", "http://")) or PLACE not in url:
        raise ConfigurationError(f"trace_url is an address such as https://traces.example/{PLACE}, not {url!r}")
    return url


def trace_link(url: str | None, trace: Mapping[str, str] | None) -> str | None:
    """``trace`` are the headers that carry the context of a dispatch. None without a trace, or without an address."""
    found = _TRACEPARENT.fullmatch((trace or {}).get("traceparent", ""))
    return None if url is None or found is None else url.replace(PLACE, found[1])
