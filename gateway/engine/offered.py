"""What functions are offered, as a worker sees it: it too turns events into runs."""

from __future__ import annotations

import asyncio
import contextlib

from gateway.errors import Unavailable
from gateway.ingest.fanout import Fanout
from gateway.store.database import Database
from gateway.store.reads import Reads

FOLLOW_SECONDS = 0.5


class Offered:
    """Owns `fanout`, and keeps it up with the database."""

    def __init__(self, database: Database) -> None:
        self._reads = Reads(database)
        self.fanout = Fanout({})
        self.refresh()

    def refresh(self) -> None:
        """Read the database and replace what has changed. Raises Unavailable when it is away."""
        apps = self._reads.apps()
        pauses = self._reads.pauses()
        if apps != self.fanout.apps or pauses != self.fanout.pauses:
            self.fanout = Fanout(apps, pauses)

    async def follow(self) -> None:
        """Refresh for as long as this runs."""
        while True:
            await asyncio.sleep(FOLLOW_SECONDS)
            with contextlib.suppress(Unavailable):
                await asyncio.to_thread(self.refresh)
