"""Sources as a gateway serves them: a provider, live secrets, and what is noted of their use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from gateway import codec
from gateway.clock import Micros
from gateway.ingest.quarantine import Budget
from gateway.sdk.provider import Provider
from gateway.store.access import NoteUses
from gateway.store.cipher import Cipher


class Secret(msgspec.Struct, frozen=True):
    """One secret of a source, under its number; void once it has expired."""

    n: int
    text: str
    created_at: Micros = 0
    expires_at: Micros | None = None

    def __repr__(self) -> str:
        return f"Secret({self.n})"

    def lives(self, now: Micros) -> bool:
        """Whether it may still verify."""
        return self.expires_at is None or now < self.expires_at


@dataclass(frozen=True, slots=True)
class Source:
    """One inbound endpoint. `origin`: where it was configured, or `api`."""

    id: str
    name: str
    provider: Provider
    secrets: tuple[Secret, ...]
    budget: Budget = field(repr=False)
    origin: str = "api"
    enabled: bool = True
    version: int = 1

    def live(self, now: Micros) -> list[Secret]:
        """The secrets that may verify now."""
        return [secret for secret in self.secrets if secret.lives(now)]

    def newest(self, now: Micros) -> Secret | None:
        """The secret to sign with: the one made last, or configured first."""
        return max(self.live(now), key=lambda secret: (secret.created_at, -secret.n), default=None)


@dataclass(frozen=True, slots=True)
class Unserved:
    """A source that is kept and answers 404, as a disabled one: nothing configures it any more, or its provider is gone."""

    id: str
    name: str
    provider: str
    origin: str
    version: int
    why: str


@dataclass(slots=True)
class Uses:
    """What was used since it was last written down."""

    secrets: dict[tuple[str, int], Micros] = field(default_factory=dict[tuple[str, int], Micros])
    keys: dict[str, Micros] = field(default_factory=dict[str, Micros])

    def take(self) -> NoteUses | None:
        """A command that writes them down, or None when there is nothing to say."""
        if not self.secrets and not self.keys:
            return None
        taken = NoteUses(self.secrets, self.keys)
        self.secrets, self.keys = {}, {}
        return taken

    def put_back(self, taken: NoteUses) -> None:
        """What could not be written down, for the next time."""
        self.secrets = {**taken.secrets, **self.secrets}
        self.keys = {**taken.keys, **self.keys}


def numbered(secrets: Sequence[str]) -> tuple[Secret, ...]:
    """Configured secrets, numbered in their order from 0."""
    return tuple(Secret(n, text) for n, text in enumerate(secrets))


def seal(cipher: Cipher, name: str, secrets: Sequence[Secret]) -> bytes:
    """A source's secrets as they are stored."""
    return cipher.encrypt(msgspec.json.encode(secrets), f"source:{name}")


def unseal(cipher: Cipher, row: Mapping[str, Any]) -> tuple[Secret, ...]:
    """The secrets in a stored source. Raises SettingsError when they were sealed under another master key."""
    items = codec.loads(cipher.decrypt(bytes(row["secrets"]), f"source:{row['name']}"))
    # The first schema stored bare texts.
    return tuple(Secret(n, item) if isinstance(item, str) else msgspec.convert(item, Secret) for n, item in enumerate(items))
