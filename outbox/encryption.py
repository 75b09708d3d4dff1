"""Encrypted texts: AES-256-GCM with a key of its own for each, and the keys that the settings name.

An encrypted text is one word, a token::

    outbox1 . key id . context . salt and ciphertext

The context says what the text is, of which job. It is authenticated, so that a token copied to another job opens
nothing. It stands in the token as well, so that a token can be encrypted with another key wherever it is found.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
from base64 import b64decode, urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as NotBase64
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from outbox.errors import ConfigurationError, DecryptionFailed

KEY_BYTES = 32
MARK = "outbox1."
"""Every token begins like this."""
TOKEN = re.compile(r"outbox1\.([0-9a-f]{8})\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")
_SALT_BYTES = 16
_NONCE_BYTES = 12
_INSTALL = "encrypted jobs need the package cryptography: pip install 'outbox-queue[encrypt]'"


def check_key(text: str) -> bytes:
    """The key that ``text`` writes in base64.

    Raises:
        ValueError: it is no key; the message does not show it.
    """
    try:
        key = b64decode(text.strip().replace("-", "+").replace("_", "/"), validate=True)
    except (NotBase64, ValueError):
        raise ValueError("a key is 32 random bytes in base64: openssl rand -base64 32") from None
    if len(key) != KEY_BYTES:
        raise ValueError(f"a key is 32 random bytes in base64, not {len(key)}: openssl rand -base64 32")
    return key


@lru_cache(maxsize=100)
def keyring(keys: tuple[str, ...]) -> Keyring:
    """The keyring of checked settings."""
    return Keyring([check_key(key) for key in keys])


class Keyring:
    """The first key writes, and all read."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = {key_id(key): key for key in keys}
        self._first = next(iter(self._keys), None)

    def check(self, job: str) -> None:
        """
        Raises:
            ConfigurationError: there is no key, or the library is missing.
        """
        if self._first is None:
            raise ConfigurationError(
                f"{job} is to be encrypted, and there is no key: set OUTBOX_ENCRYPTION_KEYS to one made with "
                "`openssl rand -base64 32`, in workers as well"
            )
        try:
            _ciphers()
        except ImportError:
            raise ConfigurationError(f"{job} is to be encrypted: {_INSTALL}") from None

    def encrypt(self, text: str, *context: str) -> str:
        """``text`` as a token under the first key."""
        assert self._first is not None  # noqa: S101 - checked before
        words = urlsafe_b64encode(json.dumps(context, separators=(",", ":")).encode()).rstrip(b"=").decode()
        head = f"{MARK}{self._first}.{words}"
        salt = os.urandom(_SALT_BYTES)
        cipher, nonce = _derived(self._keys[self._first], salt)
        encrypted = cipher.encrypt(nonce, text.encode(), head.encode())
        return f"{head}.{urlsafe_b64encode(salt + encrypted).rstrip(b'=').decode()}"

    def open(self, token: str, *context: str) -> str:
        """
        Raises:
            DecryptionFailed: the key is unknown, the text was changed, or it was written in another context.
        """
        found = TOKEN.fullmatch(token)
        if found is None:
            raise DecryptionFailed("the encrypted text is damaged")
        if _context(found[2]) != context:
            raise DecryptionFailed("the encrypted text belongs to another job, or was moved to another connection")
        return self._open(found)

    def is_current(self, token: str) -> bool:
        """Whether the first key has written it."""
        found = TOKEN.fullmatch(token)
        return found is not None and found[1] == self._first

    def encrypt_again(self, token: str) -> str:
        """The same text in the same context under the first key.

        Raises:
            DecryptionFailed: as `open`.
        """
        found = TOKEN.fullmatch(token)
        if found is None:
            raise DecryptionFailed("the encrypted text is damaged")
        return self.encrypt(self._open(found), *_context(found[2]))

    def _open(self, found: re.Match[str]) -> str:
        key = self._keys.get(found[1])
        if key is None:
            known = ", ".join(self._keys) or "none"
            raise DecryptionFailed(
                f"it was encrypted with the key {found[1]}, which OUTBOX_ENCRYPTION_KEYS does not have (it has: "
                f"{known}): add the key, and retry the job"
            )
        try:
            from cryptography.exceptions import InvalidTag

            data = _decoded(found[3])
            cipher, nonce = _derived(key, data[:_SALT_BYTES])
        except ImportError:
            raise DecryptionFailed(_INSTALL) from None
        head = f"{MARK}{found[1]}.{found[2]}".encode()
        try:
            return str(cipher.decrypt(nonce, data[_SALT_BYTES:], head), "utf-8")
        except (InvalidTag, ValueError):
            raise DecryptionFailed("the encrypted text was changed since it was written") from None

    def hash(self, data: bytes) -> bytes:
        """A hash of ``data`` that only holders of the first key can make: as long as ``data`` is, at most 64 bytes."""
        assert self._first is not None  # noqa: S101 - checked before
        return hmac.digest(self._keys[self._first], b"outbox unique" + data, "sha512")[: len(data)]


def key_id(key: bytes) -> str:
    """By which tokens name the key."""
    return hashlib.sha256(b"outbox key id" + key).hexdigest()[:8]


def _context(words: str) -> tuple[str, ...]:
    try:
        return tuple(json.loads(_decoded(words)))
    except (ValueError, TypeError):
        return ()


def _decoded(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _derived(key: bytes, salt: bytes) -> tuple[Any, bytes]:
    """The cipher and the nonce of one message. As its key is used once, the nonce may follow from it."""
    made = _ciphers()
    hkdf = made["HKDF"](algorithm=made["SHA256"](), length=KEY_BYTES + _NONCE_BYTES, salt=salt, info=b"outbox message")
    derived = hkdf.derive(key)
    return made["AESGCM"](derived[:KEY_BYTES]), derived[KEY_BYTES:]


@lru_cache(maxsize=1)
def _ciphers() -> dict[str, Any]:
    """The library, loaded when something is encrypted or decrypted for the first time.

    Raises:
        ImportError: it is not installed.
    """
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return {"AESGCM": AESGCM, "SHA256": SHA256, "HKDF": HKDF}
