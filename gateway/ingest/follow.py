"""What a gateway serves right now, kept up with the database: published functions, sources, API keys."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
import time
from collections.abc import Mapping
from typing import Any

from gateway.clock import SECOND, Clock
from gateway.core.spec import BrokenModule, Manifest
from gateway.errors import SettingsError, Unavailable
from gateway.ids import new_id
from gateway.ingest.fanout import Fanout
from gateway.ingest.quarantine import Budget
from gateway.ingest.receive import Key, Live
from gateway.ingest.sources import Source, numbered, seal, unseal
from gateway.sdk.provider import Provider
from gateway.sdk.scheme import fault_of
from gateway.settings import Settings, SourceSettings
from gateway.store.access import BY_API, SaveSource
from gateway.store.admin import FreeResumed, decode_manifest
from gateway.store.cipher import Cipher
from gateway.store.journal import Journal
from gateway.store.reads import Reads
from gateway.store.runs import Heartbeat
from gateway.telemetry import Telemetry

FOLLOW_SECONDS = 0.5
BEAT_SECONDS = 5.0

Record = Mapping[str, Any]
Apps = Mapping[str, Manifest]


class Follower:
    """Owns `live`: replaces its members when the database has others. What cannot be served is named in `broken`."""

    def __init__(
        self,
        *,
        settings: Settings,
        providers: Mapping[str, Provider],
        cipher: Cipher,
        journal: Journal,
        reads: Reads,
        clock: Clock,
        telemetry: Telemetry,
    ) -> None:
        self.id = new_id("gtw")
        self._settings = settings
        self._providers = providers
        self._cipher = cipher
        self._journal = journal
        self._reads = reads
        self._clock = clock
        self._telemetry = telemetry
        self._budgets: dict[str, Budget] = {}
        self.broken: list[BrokenModule] = []
        self._configured = {source.name: source for source in settings.sources if self._configure(source)}
        self._seen: Any = None
        self._refreshing = threading.Lock()
        self._to_free = True
        self.live = Live({}, Fanout({}))
        self.refresh()

    def _configure(self, source: SourceSettings) -> bool:
        """Keep a configured source, sealed, so that the CLI can sign as it."""
        if source.provider not in self._providers:
            self._leave_out(source.origin, source.name, self._no_provider(source.provider))
            return False
        faults = [fault for text in source.secrets if (fault := fault_of(self._providers[source.provider].scheme, text))]
        if faults or not source.secrets:
            why = f"a secret cannot be right: {faults[0]}" if faults else "it has no secret; paste the one the third party shows you"
            self._leave_out(source.origin, source.name, why)
            return False
        sealed = seal(self._cipher, source.name, numbered(source.secrets))
        save = SaveSource(
            id=new_id("src"),
            name=source.name,
            provider=source.provider,
            secrets=sealed,
            origin=source.origin,
            now=self._clock(),
            renumbered=self._renumbered(source),
        )
        if not self._journal.submit(save).result():
            message = "one of this name was made through the API, which is kept; delete it there, or choose another name"
            self._leave_out(source.origin, source.name, message)
            return False
        return True

    def _renumbered(self, source: SourceSettings) -> bool:
        """Whether the numbers of a configured source's secrets stand for others than when it was last kept."""
        row = next((row for row in self._reads.sources() if row["name"] == source.name), None)
        try:
            return row is not None and [secret.text for secret in unseal(self._cipher, row)] != list(source.secrets)
        except SettingsError:
            return True

    def refresh(self) -> None:
        """Read the database and replace what has changed. Raises Unavailable when it is away."""
        with self._refreshing:  # what was read first must not replace what was read later
            apps = {app["id"]: decode_manifest(bytes(app["manifest"])) for app in self._reads.apps()}
            rows = [row for row in self._reads.sources() if row["origin"] == BY_API or row["name"] in self._configured]
            keys = {bytes(row["hash"]): _key(row) for row in self._reads.api_keys()}
            self._replace(apps, self._reads.pauses(), rows, keys)

    def _replace(self, apps: Apps, pauses: Mapping[str, int], rows: list[Record], keys: dict[bytes, Key]) -> None:
        before = self.live.fanout
        if apps != before.apps or pauses != before.pauses:
            self.live.fanout = Fanout(apps, pauses)
            self._to_free |= bool(before.pauses.keys() - pauses.keys())
        seen = [(row["id"], row["version"], row["enabled"]) for row in rows]
        if seen != self._seen:
            self._seen = seen
            self.live.sources = {row["name"]: made for row in rows if (made := self._source(row)) is not None}
        if keys != self.live.keys:
            self.live.keys = keys

    def _source(self, row: Record) -> Source | None:
        name, configured = row["name"], self._configured.get(row["name"])
        provider = self._providers.get(row["provider"])
        if provider is None:
            self._leave_out("the API", name, self._no_provider(row["provider"]))
            return None
        try:
            secrets = numbered(configured.secrets) if configured else unseal(self._cipher, row)
        except SettingsError as error:
            # Served without secrets: it refuses everything, keeps what it refuses, and takes a new secret.
            self._leave_out("the API", name, f"{error}; or give it a new one: tidegate sources add-secret {name}")
            secrets = ()
        limits = (self._settings.quarantine_per_minute, self._settings.quarantine_bytes)
        return Source(
            id=row["id"],
            name=name,
            provider=provider,
            secrets=secrets,
            budget=self._budgets.setdefault(row["id"], Budget(*limits)),
            origin=row["origin"],
            enabled=bool(row["enabled"]),
            version=row["version"],
        )

    def _no_provider(self, name: str) -> str:
        return f"there is no provider {name!r} (there are: {', '.join(sorted(self._providers)) or 'none'})"

    def _leave_out(self, origin: str, name: str, why: str) -> None:
        found = BrokenModule(origin, f"source {name!r}: {why}")
        if found not in self.broken:
            self.broken.append(found)
            self._telemetry.emit("source.broken", origin=origin, error=found.message)

    async def run(self) -> None:
        """Follow for as long as the gateway lives; show that it does, and write down what was used."""
        self._beat_at = 0.0
        try:
            while True:
                await asyncio.sleep(FOLLOW_SECONDS)
                try:
                    await self._follow()
                except Unavailable:
                    continue  # the journal has said so
                except Exception as error:
                    self._telemetry.emit("gateway.astray", error=repr(error), exception=error)
        finally:
            with contextlib.suppress(Unavailable):
                await self._note_uses()

    async def _follow(self) -> None:
        if self._journal.health.trouble is not None or time.monotonic() >= self._beat_at:
            await self._journal.commit(self._heartbeat())
            self._beat_at = time.monotonic() + BEAT_SECONDS
        await asyncio.to_thread(self.refresh)
        if self._to_free:
            self._to_free = False
            try:
                # Behind whatever this gateway has accepted while it still thought that a function was paused.
                await self._journal.commit(FreeResumed())
            except BaseException:
                self._to_free = True
                raise
        await self._note_uses()

    async def _note_uses(self) -> None:
        taken = self.live.uses.take()
        if taken is None:
            return
        try:
            await self._journal.commit(taken)
        except BaseException:
            self.live.uses.put_back(taken)
            raise

    def _heartbeat(self) -> Heartbeat:
        lease = round(3 * BEAT_SECONDS) * SECOND
        return Heartbeat(self.id, "gateway", socket.gethostname(), os.getpid(), self._clock(), lease)


def _key(row: Record) -> Key:
    return Key(row["id"], frozenset(row["scopes"].split(",")), row["expires_at"])
