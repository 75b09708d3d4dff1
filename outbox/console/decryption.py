"""What commands show of encrypted jobs: that they are encrypted, unless ``--decrypt`` is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import click

from outbox.console.formatting import indented_json
from outbox.drivers.values import FailedJob, FinishedJob, StoredJob
from outbox.encrypted_jobs import open_failure, open_kept_result, open_payload, token_of
from outbox.encryption import Keyring, keyring
from outbox.relay.route import relayed_connection
from outbox.settings import Settings

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


def decrypted_job(settings: Settings, connection: str, job: StoredJob) -> StoredJob:
    """
    Raises:
        DecryptionFailed: it cannot be decrypted.
    """
    target = relayed_connection(job.queue) or connection
    payload = open_payload(_keys(settings), job.payload, job.headers, job.name, job.id, target)
    return replace(job, payload=payload)


def decrypted_failed_job(settings: Settings, job: FailedJob) -> FailedJob:
    """
    Raises:
        DecryptionFailed: it cannot be decrypted.
    """
    keys = _keys(settings)
    target = relayed_connection(job.queue) or job.connection
    payload = open_payload(keys, job.payload, job.headers, job.name, job.id, target)
    return replace(job, payload=payload, failure=open_failure(keys, job.failure, job.name, job.id))


def decrypted_finished_job(settings: Settings, connection: str, job: FinishedJob) -> FinishedJob:
    """
    Raises:
        DecryptionFailed: it cannot be decrypted.
    """
    keys = _keys(settings)
    payload = open_payload(keys, job.payload, job.headers, job.name, job.id, connection)
    return replace(job, payload=payload, result=open_kept_result(keys, job.result, job.name, job.id))


def _keys(settings: Settings) -> Keyring:
    return keyring(settings.encryption_keys)
