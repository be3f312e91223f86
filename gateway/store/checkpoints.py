"""The SQLite file that is written to, and its write-ahead log, which is copied into it beside the commits:
https://www.sqlite.org/wal.html#ckpt"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from gateway.errors import Unavailable

COPY_ROWS = 1_000
COPY_ROWS_BUSY = 4_000
BUSY_COMMANDS = 16
LOG_ROWS = 64_000
LOG_BYTES = 192 << 20


class WrittenFile:
    """One database file, opened to be written to by the process that has the turn. `identity` tells it from another in its place.

    Raises Unavailable when it cannot be opened, or is no database of Tidegate's.
    """

    def __init__(
        self,
        path: Path,
        identity: tuple[int, int],
        connect: Callable[[], sqlite3.Connection],
        turn: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self.identity = identity
        self._log = f"{path}-wal"
        self._turn = turn
        self._copying: threading.Thread | None = None
        self._copied_at = self._begun_at = 0
        self._longest = LOG_BYTES
        with contextlib.ExitStack() as undo:
            self.connection, self._copier = (undo.enter_context(contextlib.closing(connect())) for _ in range(2))
            if not self.connection.execute("select 1 from sqlite_master where name = 'queue'").fetchone():
                raise Unavailable(f"SQLite: {path.name} has no Tidegate schema", state="unreachable")
            try:
                self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                raise Unavailable(f"SQLite: {path.name} {error.strerror}", state="unreachable") from error
            undo.pop_all()

    def after_commit(self, commands: int) -> None:
        """Checkpoint off the commit path: bit by bit beside it, and, when the log is long enough, the rest in the writer's turn.

        Small bits, because a commit waits for the disk behind them; larger ones while so much comes that it waits anyway, for then what
        is written again and again is copied once. The turn follows one of them at once, for then next to nothing is left for it.
        """
        if self._copying is not None and self._copying.is_alive():
            return
        changes = self.connection.total_changes
        if self._copying is not None:
            self._copying = None
            if changes - self._begun_at > LOG_ROWS or self._log_is_long():
                self._begin_log_anew(self.connection)
        elif changes - self._copied_at >= (COPY_ROWS if commands < BUSY_COMMANDS else COPY_ROWS_BUSY):
            self._copied_at = changes
            self._copying = threading.Thread(target=self._copy, name="checkpoint", daemon=True)
            self._copying.start()

    def close(self) -> None:
        """Close it, once no checkpoint runs any more, with all that was written in the file itself: the log is easily forgotten
        when it is copied."""
        if self._copying is not None:
            self._copying.join()
        with contextlib.suppress(sqlite3.Error):
            self.connection.execute("pragma wal_checkpoint(truncate)")
        self._copier.close()
        self.connection.close()
        os.close(self._descriptor)  # last: with a descriptor go all locks that this process has on the file (fcntl(2))

    def _copy(self) -> None:
        with contextlib.suppress(sqlite3.Error, OSError):
            self._copier.execute("pragma wal_checkpoint(passive)")
            # SQLite does so only when nothing was committed meanwhile; else all of it would be left for the turn.
            os.fsync(self._descriptor)

    def _begin_log_anew(self, writer: sqlite3.Connection) -> None:
        """At the start of its file, which is kept: writing over it is faster than making it longer. A reader that still
        needs the log is not waited for; then it may grow some more."""
        busy = 1
        with contextlib.suppress(sqlite3.Error), self._turn():
            [(patience,)] = writer.execute("pragma busy_timeout").fetchall()
            writer.execute("pragma busy_timeout = 0")
            try:
                [(busy, _, _)] = writer.execute("pragma wal_checkpoint(restart)").fetchall()
            finally:
                writer.execute(f"pragma busy_timeout = {patience}")
        self._begun_at = self._copied_at = writer.total_changes
        self._longest = self._longest + LOG_BYTES if busy else LOG_BYTES

    def _log_is_long(self) -> bool:
        """Whether few but large rows have made it so."""
        with contextlib.suppress(OSError):
            return os.stat(self._log).st_size > self._longest
        return False
