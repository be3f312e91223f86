"""Every error Tidegate raises, by whose fault it is. A class's docstring is its message when none is given.

TidegateError
├── SenderError             the other side of an HTTP call did something wrong; never retried by us
│   ├── Unauthorized
│   ├── Forbidden
│   ├── NotFound
│   ├── InvalidRequest
│   ├── Conflict
│   ├── PreconditionFailed
│   └── TooLarge
├── AuthorError             who writes a function or a provider can mend it
│   ├── DeclarationError
│   ├── NonRetriableError
│   │   ├── PayloadMismatch
│   │   ├── StepMismatch
│   │   └── StepTooLarge
│   ├── StepError
│   └── RetryAfterError
├── OperatorError           who runs Tidegate can mend it; stops a start with one line
│   ├── SettingsError
│   └── SchemaMismatch
└── Unavailable             our fault, for now: try again
    └── Overloaded
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Literal

EXIT_OPERATOR = 78  # sysexits.h, EX_CONFIG: starting again would not help


class TidegateError(Exception):
    """Something went wrong."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())


class SenderError(TidegateError):
    """The request cannot be served."""


class Unauthorized(SenderError):
    """This call needs an API key: send it as `Authorization: Bearer tg_…`."""


class Forbidden(SenderError):
    """This API key lacks the scope the call needs."""


class NotFound(SenderError):
    """There is nothing here."""


class InvalidRequest(SenderError):
    """The request is not valid."""

    def __init__(self, message: str | None = None, *, code: str = "invalid_request", pointer: str | None = None):
        super().__init__(message)
        self.code = code
        self.pointer = pointer


class Conflict(SenderError):
    """The state of the resource does not allow this."""


class PreconditionFailed(SenderError):
    """The resource has changed since: its ETag is not the one in `If-Match`. Read it again."""


class TooLarge(SenderError):
    """The body is larger than this gateway accepts."""


class AuthorError(TidegateError):
    """A function or provider is at fault."""


class DeclarationError(AuthorError):
    """A function, event or provider is declared wrongly."""


class NonRetriableError(AuthorError):
    """Raised by a function to fail its run at once, without the retries that are left."""


class PayloadMismatch(NonRetriableError):
    """The event's data does not fit the class the function declared."""


class StepMismatch(NonRetriableError):
    """The code asks for a step of another kind than the one the run remembers under this id."""


class StepTooLarge(NonRetriableError):
    """The result of a step is larger than a run may remember."""


class StepError(AuthorError):
    """A step has failed for good: its tries are over, or it said that trying again is no use. The run remembers that.

    `step` is its id, `type` the class of the error that it raised last, `traceback` where. Not caught, it fails the run.
    """

    def __init__(self, step: str, type: str, message: str, traceback: str = "") -> None:
        super().__init__(f"step {step!r} failed: {type}: {message}")
        self.step = step
        self.type = type
        self.reason = message
        self.traceback = traceback


class RetryAfterError(AuthorError):
    """Raised by a function to be retried at a time of its choosing.

    `when` is an aware datetime, a timedelta, or a number of seconds from now.
    """

    def __init__(self, when: datetime | timedelta | float, message: str = "it asked to be retried later") -> None:
        super().__init__(message)
        if isinstance(when, datetime) and when.tzinfo is None:
            raise DeclarationError("RetryAfterError needs a datetime with a time zone, e.g. datetime.now(UTC) + …")
        if isinstance(when, bool) or not isinstance(when, datetime | timedelta | int | float):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise DeclarationError(f"RetryAfterError takes an aware datetime, a timedelta or seconds, not {when!r}")
        self.when = when


class OperatorError(TidegateError):
    """Tidegate is set up wrongly."""


class SettingsError(OperatorError):
    """A setting is wrong."""


class SchemaMismatch(OperatorError):
    """The database's schema is not the one this version knows."""


StoreState = Literal[
    "unreachable", "stalled", "locked", "conflict", "disk_full", "read_only", "io_error", "corrupt", "too_many_connections", "overloaded",
    "writer_ended", "other_schema",
]  # fmt: skip

# What whoever runs Tidegate should know and do, for each state the store can be in.
STORE_REMEDIES: Mapping[StoreState, str] = {
    "unreachable": "The database cannot be reached. Is the server running, or the file in its place, and is TIDEGATE_DATABASE_URL right?",
    "stalled": "The database does not answer in time: look at its load, its disk, and who holds its locks.",
    "locked": "Another program holds the lock on the database file; end it, or let it finish.",
    "conflict": "The database had to give up on a transaction; it is tried again.",
    "disk_full": "The disk that holds the database is full. Free some space; what was acknowledged is safe.",
    "read_only": "The database can only be read: a read-only file system, wrong permissions, or a standby server.",
    "io_error": "The disk that holds the database answers with errors; look at the system's log.",
    "corrupt": "The database file is damaged. Stop Tidegate, keep the file, and restore a backup: docs/operations.md.",
    "too_many_connections": "The database server has no connection left: end other clients, or raise max_connections.",
    "overloaded": "Too much is waiting to be written.",
    "writer_ended": "The process by which a gateway writes has ended and is started again; was it killed for want of memory?",
    "other_schema": "The database was migrated by another version of Tidegate: start that version in the place of this one.",
}


class Unavailable(TidegateError):
    """The store cannot be reached right now; try again."""

    def __init__(self, message: str | None = None, *, state: StoreState = "unreachable") -> None:
        super().__init__(message)
        self.state: StoreState = state

    @property
    def remedy(self) -> str:
        """What whoever runs Tidegate should know and do."""
        return STORE_REMEDIES[self.state]

    @property
    def passing(self) -> bool:
        """Whether trying again at once may help."""
        return self.state in ("unreachable", "conflict")


class Overloaded(Unavailable):
    """Too much is waiting to be written right now; try again."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message, state="overloaded")
