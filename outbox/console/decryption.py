"""What commands show of encrypted jobs: that they are encrypted, unless ``--decrypt`` is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from outbox.console.formatting import indented_json
from outbox.encrypted_jobs import token_of

_ENCRYPTED = "encrypted"

Function = TypeVar("Function", bound=Callable[..., Any])


def decrypt_option(function: Function) -> Function:
    return click.option(
        "--decrypt", is_flag=True, help="With an ID: what is encrypted, with the keys of OUTBOX_ENCRYPTION_KEYS."
    )(function)


def short_payload(payload: str) -> str:
    return payload if token_of(payload) is None else _ENCRYPTED


def indented_payload(payload: str) -> str:
    return indented_json(payload) if token_of(payload) is None else f"{_ENCRYPTED}; --decrypt shows it"
