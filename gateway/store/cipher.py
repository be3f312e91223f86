"""Secrets at rest: AES-256-GCM under a master key that lives outside the database (G8)."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway.errors import SettingsError

NONCE_BYTES = 12


class Cipher:
    """Encrypts and decrypts under one master key; `label` binds a text to its place."""

    def __init__(self, master_key: str) -> None:
        self._root = hashlib.sha256(master_key.encode()).digest()
        self._aead = AESGCM(self._derive("secrets"))
        self._fingerprints = self._derive("fingerprints")

    def encrypt(self, text: bytes, label: str) -> bytes:
        """A nonce and the ciphertext."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._aead.encrypt(nonce, text, label.encode())

    def decrypt(self, sealed: bytes, label: str) -> bytes:
        """The text. Raises SettingsError when the master key is another one."""
        try:
            return self._aead.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], label.encode())
        except InvalidTag:
            raise SettingsError(
                "the stored secrets were encrypted under another master key: set TIDEGATE_MASTER_KEY, or put back master.key"
            ) from None

    def fingerprint(self, text: bytes) -> bytes:
        """What tells a text from others, and tells nothing of it to whoever lacks the master key."""
        return hmac.digest(self._fingerprints, text, "sha256")

    def local_api_key(self) -> str:
        """The API key of whoever holds the master key: how the CLI on this machine gets in without one being kept."""
        return "tg_local_" + self._derive("local-api-key").hex()

    def _derive(self, purpose: str) -> bytes:
        return hmac.digest(self._root, purpose.encode(), "sha256")


def load_cipher(master_key: str | None, data_dir: Path, *, make: bool = False) -> Cipher:
    """The cipher under the configured key, or under the one in `data_dir`, which `make` makes (mode 0600) where there is none.

    Raises SettingsError when there is no key, or no usable one.
    """
    if master_key is not None:
        if len(master_key) < 16:
            raise SettingsError("TIDEGATE_MASTER_KEY must have at least 16 characters")
        return Cipher(master_key)
    path = data_dir / "master.key"
    try:
        if make and not path.exists():
            _make_key(path)
        key = path.read_text().strip()
    except FileNotFoundError:
        raise SettingsError(f"there is no master key at {path}; run this where the gateway runs, or set TIDEGATE_API_KEY") from None
    except OSError as error:
        raise SettingsError(f"the master key {path} cannot be read or made: {error.strerror}") from None
    if len(key) < 16:
        raise SettingsError(f"the master key file {path} is damaged; put back a copy, or set TIDEGATE_MASTER_KEY")
    return Cipher(key)


def _make_key(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f".master.key.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_urlsafe(32) + "\n")
        file.flush()
        os.fsync(file.fileno())
    # A link, not a rename: of two processes that start at once, the first one's key stays.
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        temporary.unlink()
