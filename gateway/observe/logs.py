"""Logs: one line per fact, for people in a terminal, as JSON otherwise. Never a secret, never a payload."""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog

QUIET = {"run.started", "webhook.accepted", "webhook.duplicate"}

SENTENCES: dict[str, tuple[str, str]] = {
    "webhook.refused": ("warning", "webhook refused"),
    "webhook.accepted": ("debug", "webhook accepted"),
    "webhook.duplicate": ("debug", "webhook seen before"),
    "webhook.unavailable": ("error", "webhook answered 503: the store is away"),
    "api.error": ("error", "request failed"),
    "module.broken": ("error", "module left out"),
    "source.broken": ("error", "source left out"),
    "store.away": ("error", "the store is away"),
    "store.back": ("info", "the store is back"),
    "worker.started": ("info", "worker started"),
    "worker.stopped": ("info", "worker stopped"),
    "worker.blocked": ("warning", "a function blocks the event loop; make it a plain `def`, or await"),
    "worker.abandoned": ("error", "a function blocked the event loop for a lease; worker restarts"),
    "worker.store_unavailable": ("error", "the store is away"),
    "run.started": ("debug", "run started"),
    "run.ended": ("info", "run"),
    "run.lease_lost": ("warning", "run has another holder; result dropped"),
    "run.commit_failed": ("error", "result could not be kept"),
    "functions.published": ("info", "functions published"),
    "process.exited": ("error", "process ended; restarting"),
}


def configure() -> None:
    """Set up structlog and the standard library's logging for this process, on standard error."""
    processors: list[Any] = [
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
    for noisy in ("httpx", "_granian", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def _run_context(_logger: Any, _method: str, event: Any) -> Any:
    record = event.get("_record")
    for name in ("run_id", "function_id", "attempt"):
        if record is not None and hasattr(record, name):
            event[name] = getattr(record, name)
    return event


class LogListener:
    """Writes facts; a run of `store.away` facts is one line, not a thousand."""

    def __init__(self) -> None:
        self._logger = structlog.get_logger()
        self._last_away = ""

    def __call__(self, name: str, facts: dict[str, Any]) -> None:
        level, sentence = SENTENCES[name]
        if name in QUIET or (name == "run.ended" and facts["move"] == "succeed"):
            return
        if "unavailable" in name:
            if self._last_away == str(facts.get("error")):
                return
            self._last_away = str(facts.get("error"))
        exception = facts.pop("exception", None)
        getattr(self._logger, level)(sentence, fact=name, **facts, **({"exc_info": exception} if exception else {}))
