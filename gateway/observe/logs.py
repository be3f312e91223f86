"""Logs: one line per fact, for people in a terminal, as JSON otherwise. Never a secret, never a payload."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Collection
from typing import Any

import structlog

from gateway.engine.runlog import current, step_key

# Counted, but no line each: an accepted webhook is everyday, and what is refused while the store is away has one line in all.
QUIET = {"run.started", "webhook.accepted", "webhook.duplicate", "webhook.unavailable"}

# Facts that come in floods, and what makes two of them the same.
FLOODS = {
    "webhook.refused": ("source", "reason"),
    "webhook.astray": ("source", "remedy"),
    "webhook.unread": ("source", "error"),
    "delivery.if_error": ("function",),
    "store.away": ("state",),
    "store.back": ("state",),
    "run.lease_lost": (),
    "api.error": ("path", "error"),
    "gateway.astray": ("error",),
    "worker.astray": ("error",),
}
FLOOD_SECONDS = 10.0
MAX_FLOODS = 1000

SENTENCES: dict[str, tuple[str, str]] = {
    "webhook.refused": ("warning", "webhook refused"),
    "webhook.astray": ("error", "a provider failed to verify a webhook, which was answered with 500; `kept`: it is in quarantine"),
    "webhook.unread": ("warning", "the provider could not read a verified webhook; it is an event of type `unknown`"),
    "delivery.if_error": ("warning", "an `if_` could not be decided; the function was skipped: tidegate events show"),
    "webhook.accepted": ("debug", "webhook accepted"),
    "webhook.duplicate": ("debug", "webhook seen before"),
    "webhook.unavailable": ("debug", "webhook answered 503"),
    "api.error": ("error", "request failed"),
    "module.broken": ("error", "module, or a declaration in it, left out"),
    "source.broken": ("error", "source left out"),
    "gateway.astray": ("error", "what has changed in the database could not be followed; it is tried again"),
    "store.away": ("error", "the store is away"),
    "store.back": ("info", "the store is back"),
    "worker.started": ("info", "worker started"),
    "worker.stopped": ("info", "worker stopped"),
    "worker.blocked": ("warning", "a function blocks the event loop; make it a plain `def`, or await"),
    "worker.astray": ("error", "what follows from arrived events or ended runs could not be done; it is tried again"),
    "worker.abandoned": ("error", "a function blocked the event loop for a lease; worker restarts"),
    "run.started": ("debug", "run started"),
    "run.lease_lost": ("warning", "run was cancelled, or has another holder; result dropped"),
    "run.commit_failed": ("error", "result could not be kept"),
    "retention.swept": ("info", "what was old is removed"),
    "functions.published": ("info", "functions published"),
    "process.exited": ("error", "process ended; restarting"),
}

# A run's attempt may end in many ways; those that are everyday have no line.
ENDED: dict[str, tuple[str, str]] = {
    "fail": ("warning", "run failed"),
    "retry": ("info", "attempt failed; the run is tried again"),
    "hand_back": ("info", "attempt was handed back; another worker goes on"),
    "cancel": ("info", "run was cancelled"),
}


def configure(process_id: str | None = None) -> None:
    """Set up structlog and the standard library's logging for this process, on standard error; each line carries its id."""

    def add_process(_logger: Any, _method: str, event: Any) -> Any:
        return event if process_id is None else {**event, "process_id": process_id}

    processors: list[Any] = [
        add_process,
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    final = structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[*processors, final],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    stages = [_run_context, structlog.stdlib.ProcessorFormatter.remove_processors_meta, final]
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processors=stages, foreign_pre_chain=processors))
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)
    for noisy in ("httpx", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # A lost connection is told by the journal; and what is no HTTP, by anybody and in any number, is no news.
    for noisy in ("psycopg", "uvicorn"):
        logging.getLogger(noisy).setLevel(logging.ERROR)


def _run_context(_logger: Any, _method: str, event: Any) -> Any:
    """Where a line was said. From a thread that does not know its run, a context's own logger still brings it."""
    where = current.get() or event["_record"]
    for name in ("run_id", "function_id", "attempt"):
        if hasattr(where, name):
            event[name] = getattr(where, name)
    if (step := step_key.get()) is not None:
        event["step"] = step
    return event


class LogListener:
    """Writes facts but those in `untold`, which another process has told already.

    Of facts that come in floods, the same one is written once in FLOOD_SECONDS, with how often it came.
    """

    def __init__(self, untold: Collection[str] = ()) -> None:
        self._silent = {*QUIET, *untold}
        self._logger = structlog.get_logger()
        self._floods: dict[tuple[Any, ...], tuple[float, int]] = {}

    def __call__(self, name: str, facts: dict[str, Any]) -> None:
        told = ENDED.get(facts["move"]) if name == "run.ended" else SENTENCES[name]
        if told is None or name in self._silent:
            return
        level, sentence = told
        repeated = self._repeated(name, facts) if name in FLOODS else 0
        if repeated is None:
            return
        more: dict[str, Any] = {"repeated": repeated} if repeated else {}
        exception = facts.get("exception")
        if exception is not None:
            more["exc_info"] = exception
        if facts.get("traceback"):
            more["exception"] = facts["traceback"]
        shown = {key: value for key, value in facts.items() if key not in ("exception", "traceback", "duration_us")}
        if "duration_us" in facts:
            shown["duration_ms"] = facts["duration_us"] // 1000
        getattr(self._logger, level)(sentence, fact=name, **shown, **more)

    def _repeated(self, name: str, facts: dict[str, Any]) -> int | None:
        """How often this was kept back since it was last written; None when it is to be kept back too."""
        key = (name, *(facts.get(part) for part in FLOODS[name]))
        written, kept_back = self._floods.get(key, (float("-inf"), 0))
        now = time.monotonic()
        if len(self._floods) > MAX_FLOODS:
            self._floods.clear()
        if now - written < FLOOD_SECONDS:
            self._floods[key] = (written, kept_back + 1)
            return None
        self._floods[key] = (now, 0)
        return kept_back
