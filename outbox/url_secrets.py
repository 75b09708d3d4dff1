"""URLs of databases and Redis in messages: never with any part of a password, even where the URL is written wrongly."""

from __future__ import annotations

import re

_SECRET_OPTION = re.compile(r"(?i)((?:^|[?&])[^=&?]*(?:pass|pwd|secret|token)[^=&]*=).*")
_PORT = re.compile(r":\d{1,5}(?:[/?#,]|$)")


def without_secrets(url: str) -> str:
    """``url`` for people.

    What stands between the name of a user and the last @ is taken for a password. So is what stands in the place of a
    port and is none. Where it cannot be told what is a password, nothing but the scheme is shown.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return "…" if re.search("[@:]", url) else url
    before, at, after = rest.rpartition("@")
    user, colon, _ = before.partition(":")
    if re.search("[@/?#]", before):
        return f"{scheme}://…"
    host, place, behind = after.partition("]")[2].partition(":") if after.startswith("[") else after.partition(":")
    if place and not _PORT.match(place + behind):
        after = f"{host}:***"
    after = _SECRET_OPTION.sub(r"\1***", after)
    shown = f"{user}:***@" if colon else f"{user}{at}"
    return f"{scheme}://{shown}{after}"
