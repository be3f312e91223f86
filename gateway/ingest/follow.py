"""What a gateway serves right now, kept up with the database: published functions, sources, API keys."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from gateway.clock import SECOND, Clock
from gateway.core.spec import BrokenModule, Manifest
from gateway.errors import SettingsError, Unavailable
from gateway.ids import new_id
from gateway.ingest.fanout import Fanout
from gateway.ingest.quarantine import Budget
from gateway.ingest.receive import Key, Live
from gateway.ingest.sources import Source, Unserved, numbered, seal, unseal
from gateway.sdk.provider import Provider
from gateway.sdk.scheme import fault_of
from gateway.settings import Settings, SourceSettings
from gateway.store.access import BY_API, SaveSource
from gateway.store.admin import FreeResumed
from gateway.store.cipher import Cipher
from gateway.store.journal import Journal
from gateway.store.reads import Reads
from gateway.store.runs import Heartbeat, Retire
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
        id: str,
        settings: Settings,
        providers: Mapping[str, Provider],
        cipher: Cipher,
        journal: Journal,
        reads: Reads,
        clock: Clock,
        telemetry: Telemetry,
    ) -> None:
        self.id = id
        self._settings = settings
        self._providers = providers
        self._cipher = cipher
        self._journal = journal
        self._reads = reads
        self._clock = clock
        self._telemetry = telemetry
        self._budgets: dict[str, Budget] = {}
        self._misconfigured: dict[str, BrokenModule] = {}
        self._left_out: list[BrokenModule] = []
        self._configured = {source.name: source for source in settings.sources if self._configure(source)}
        self._seen: Any = None
        self._refreshing = threading.Lock()
        self._to_free = True
        self.live = Live({}, Fanout({}))
        # Others are to know of this gateway before it serves anything.
        journal.submit(self._heartbeat()).result()
        self.refresh()

    @property
    def broken(self) -> list[BrokenModule]:
        """What is left out now, and why."""
        return [*self._misconfigured.values(), *self._left_out]

    def _configure(self, source: SourceSettings) -> bool:
        """Keep a configured source, sealed, so that the CLI can sign as it."""
        if source.provider not in self._providers:
            return self._refuse(source, self._no_provider(source.provider))
        faults = [fault for text in source.secrets if (fault := fault_of(self._providers[source.provider].scheme, text))]
        if faults or not source.secrets:
            why = f"a secret cannot be right: {faults[0]}" if faults else "it has no secret; paste the one the third party shows you"
            return self._refuse(source, why)
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
            return self._refuse(source, message)
        return True

    def _refuse(self, source: SourceSettings, why: str) -> bool:
        self._misconfigured[source.name] = found = BrokenModule(source.origin, f"source {source.name!r}: {why}")
        self._tell(found)
        return False

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
            apps = self._reads.apps()
            rows = self._reads.sources()
            keys = {bytes(row["hash"]): _key(row) for row in self._reads.api_keys()}
            self._replace(apps, self._reads.pauses(), rows, keys)

    def _replace(self, apps: Apps, pauses: Mapping[str, int], rows: Sequence[Record], keys: dict[bytes, Key]) -> None:
        before = self.live.fanout
        if apps != before.apps or pauses != before.pauses:
            self.live.fanout = Fanout(apps, pauses)
            self._to_free |= bool(before.pauses.keys() - pauses.keys())
        seen = [(row["id"], row["version"], row["enabled"]) for row in rows]
        if seen != self._seen:
            told, self._left_out = self._left_out, []
            made = [self._made(row) for row in rows]
            self.live.sources = {source.name: source for source in made if isinstance(source, Source)}
            self.live.unserved = {source.name: source for source in made if isinstance(source, Unserved)}
            self._seen = seen
            for found in self._left_out:
                if found not in told:
                    self._tell(found)
        if keys != self.live.keys:
            self.live.keys = keys

    def _made(self, row: Record) -> Source | Unserved:
        """A source of the database, with the secrets that are configured now where it was not made through the API."""
        name, by_api = row["name"], row["origin"] == BY_API
        configured, provider = None if by_api else self._configured.get(name), self._providers.get(row["provider"])
        if not by_api and configured is None:
            return self._unserved(
                row, f"no longer configured by {row['origin']} for this gateway, though another one may serve it; set that again"
            )
        if provider is None:
            return self._unserved(row, f"{self._no_provider(row['provider'])}; mend its file, or put it back")
        try:
            secrets = numbered(configured.secrets) if configured else unseal(self._cipher, row)
        except SettingsError as error:
            # Served without secrets: it refuses everything, keeps what it refuses, and takes a new secret.
            self._leave_out(row, f"{error}; or give it a new one: tidegate sources add-secret {name}")
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

    def _unserved(self, row: Record, why: str) -> Unserved:
        name = row["name"]
        if name in self._misconfigured and row["origin"] != BY_API:
            why = "its configuration or its provider is at fault; see: tidegate doctor"
        else:
            why += f", take it over: tidegate sources add {name}, or remove it: tidegate sources delete {name}"
            self._leave_out(row, why)
        return Unserved(row["id"], name, row["provider"], row["origin"], row["version"], why)

    def _no_provider(self, name: str) -> str:
        return f"there is no provider {name!r} (there are: {', '.join(sorted(self._providers)) or 'none'})"

    def _leave_out(self, row: Record, why: str) -> None:
        origin = "what was made through the API" if row["origin"] == BY_API else row["origin"]
        self._left_out.append(BrokenModule(origin, f"source {row['name']!r}: {why}"))

    def _tell(self, found: BrokenModule) -> None:
        self._telemetry.emit("source.broken", origin=found.file, error=found.message)

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
                await self._journal.commit(Retire(self.id))

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
