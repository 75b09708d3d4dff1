"""The TLS options of a database's URL."""

from __future__ import annotations

import ssl
from typing import Any

from outbox.errors import ConfigurationError

_OPTIONS = "ssl_ca, ssl_capath, ssl_cert, ssl_key, ssl_cipher, ssl_check_hostname"


def check_tls(url: str, options: Any) -> None:
    """Refuse what no connection can be made with. The files are read as asyncmy will read them.

    Raises:
        ConfigurationError: an option has a wrong type, a file cannot be read, or is not what its option says.
    """
    if options is None:
        return
    if not isinstance(options, dict):
        raise ConfigurationError(f"{url}: ssl={options} is no TLS option: write ssl_ca=/path/to/ca.pem ({_OPTIONS})")
    try:
        context = ssl.create_default_context(cafile=options.get("ca"), capath=options.get("capath"))
        if "cert" in options:
            context.load_cert_chain(options["cert"], keyfile=options.get("key"))
        if "cipher" in options:
            context.set_ciphers(options["cipher"])
    except (OSError, TypeError, ValueError) as error:  # errors of TLS are OSErrors
        named = ", ".join(f"ssl_{name}={value}" for name, value in options.items())
        raise ConfigurationError(f"{url}: no TLS connection can be made with {named}: {error}") from error
