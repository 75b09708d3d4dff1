"""What of an encrypted job is kept encrypted: its payload, its unique key, its result, and what it raised."""

from __future__ import annotations

import json
import re

from outbox.encryption import TOKEN, Keyring
from outbox.envelope import Envelope, Headers
from outbox.errors import DecryptionFailed
from outbox.ids import JobId
from outbox.settlement import ENCRYPTED, Failure

SCHEDULED = "a schedule"
"""In place of the id of a job whose id is not known when it is encrypted: each tick makes one."""

_ENCRYPTED = re.compile(rf'\s*\{{\s*"encrypted"\s*:\s*"({TOKEN.pattern})"\s*\}}\s*')


def encrypt_job(envelope: Envelope, keys: Keyring, connection: str) -> Envelope:
    """``envelope`` with its payload encrypted, and a key that only holders of the secret can find.

    Raises:
        ConfigurationError: there is no key to encrypt with, or the library is missing.
    """
    keys.check(envelope.name)
    plain, name = envelope.payload, envelope.name

    def encrypted_for(subject: JobId | str) -> str:
        token = keys.encrypt(plain, "payload", name, str(subject), connection)
        return json.dumps({"encrypted": token}, separators=(",", ":"))

    headers = Headers.load(envelope.headers)
    unique = headers.unique
    if unique is not None:
        unique = unique.model_copy(update={"key": keys.hash(unique.key_bytes).hex()})
    headers = headers.model_copy(update={"encrypted": True, "unique": unique})
    return envelope._replace(payload=encrypted_for(envelope.id), headers=headers.dump(), encrypted_for=encrypted_for)


def token_of(payload: str) -> str | None:
    """The encrypted text in a payload; None where it is not encrypted."""
    found = _ENCRYPTED.fullmatch(payload)
    return None if found is None else found[1]


def open_payload(keys: Keyring, payload: str, headers: str, name: str, job_id: JobId, connection: str) -> str:
    """The payload of a job; one that is not encrypted as it is.

    Raises:
        DecryptionFailed: it cannot be decrypted.
    """
    token = token_of(payload)
    if token is None:
        return payload
    scheduled = '"tick"' in headers and Headers.load(headers).tick is not None
    return keys.open(token, "payload", name, SCHEDULED if scheduled else str(job_id), connection)


class JobCipher:
    """Encrypts what one attempt at an encrypted job leaves behind."""

    __slots__ = ("_job_id", "_keys", "_name")

    def __init__(self, keys: Keyring, name: str, job_id: JobId) -> None:
        self._keys = keys
        self._name = name
        self._job_id = job_id

    def failure(self, error: BaseException) -> Failure:
        """Only the type of ``error`` stays readable."""
        failure = Failure.of(error)
        text = json.dumps([failure.message, failure.traceback])
        token = self._keys.encrypt(text, "failure", self._name, str(self._job_id))
        return Failure(failure.type, ENCRYPTED, token)

    def kept_result(self, text: str) -> str:
        """What a finished job is kept with, in the form of an encrypted payload."""
        token = self._keys.encrypt(text, "kept result", self._name, str(self._job_id))
        return json.dumps({"encrypted": token}, separators=(",", ":"))

    def result(self, text: str, chain: JobId, number: int) -> str:
        return self._keys.encrypt(text, "result", str(chain), str(number))


def open_failure(keys: Keyring, failure: Failure, name: str, job_id: JobId) -> Failure:
    """
    Raises:
        DecryptionFailed: it cannot be decrypted.
    """
    if not failure.encrypted:
        return failure
    message, traceback = json.loads(keys.open(failure.traceback, "failure", name, str(job_id)))
    return Failure(failure.type, message, traceback)


def open_result(keys: Keyring, text: str, chain: JobId, number: int) -> str:
    """What the job with this number of a chain returned, as JSON.

    Raises:
        DecryptionFailed: it cannot be decrypted.
    """
    return keys.open(text, "result", str(chain), str(number)) if TOKEN.fullmatch(text) else text


def open_kept_result(keys: Keyring, text: str, name: str, job_id: JobId) -> str:
    """What a finished job is kept with, as JSON.

    Raises:
        DecryptionFailed: it cannot be decrypted.
    """
    token = token_of(text)
    return text if token is None else keys.open(token, "kept result", name, str(job_id))


class Rekeying:
    """Encrypts every token in a text with the first key, and counts."""

    def __init__(self, keys: Keyring) -> None:
        self._keys = keys
        self.current = 0
        """Tokens that the first key has written."""
        self.left: dict[str, int] = {}
        """Tokens that stay as they are, by the reason."""

    def begin(self) -> None:
        self.current = 0
        self.left = {}

    def __call__(self, text: str) -> str:
        return TOKEN.sub(self._one, text)

    def _one(self, found: re.Match[str]) -> str:
        token = found[0]
        if self._keys.is_current(token):
            self.current += 1
            return token
        try:
            return self._keys.encrypt_again(token)
        except DecryptionFailed as error:
            self.left[str(error)] = self.left.get(str(error), 0) + 1
            return token
