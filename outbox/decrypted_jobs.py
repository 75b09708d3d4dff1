"""Jobs as they were before they were encrypted, for people who may see that."""

from __future__ import annotations

from dataclasses import replace

from outbox.drivers.values import FailedJob, FinishedJob, StoredJob
from outbox.encrypted_jobs import open_failure, open_kept_result, open_payload
from outbox.encryption import Keyring
from outbox.relay.route import relayed_connection


def decrypted_job(keys: Keyring, connection: str, job: StoredJob) -> StoredJob:
    """
    Raises:
        DecryptionFailed: it cannot be decrypted.
    """
    target = relayed_connection(job.queue) or connection
    return replace(job, payload=open_payload(keys, job.payload, job.headers, job.name, job.id, target))


def decrypted_failed_job(keys: Keyring, job: FailedJob) -> FailedJob:
    """
    Raises:
        DecryptionFailed: it cannot be decrypted.
    """
    target = relayed_connection(job.queue) or job.connection
    payload = open_payload(keys, job.payload, job.headers, job.name, job.id, target)
    return replace(job, payload=payload, failure=open_failure(keys, job.failure, job.name, job.id))


def decrypted_finished_job(keys: Keyring, connection: str, job: FinishedJob) -> FinishedJob:
    """
    Raises:
        DecryptionFailed: it cannot be decrypted.
    """
    payload = open_payload(keys, job.payload, job.headers, job.name, job.id, connection)
    return replace(job, payload=payload, result=open_kept_result(keys, job.result, job.name, job.id))
