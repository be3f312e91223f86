"""Settings of the Python interpreter for a process with one busy loop and one writer beside it."""

from __future__ import annotations

import gc
import sys

SWITCH_SECONDS = 0.0002


def tune() -> None:
    """To be called once everything that lives as long as the process is loaded."""
    # The writer's thread asks for the interpreter some forty times a transaction; by default it would wait 5 ms each time.
    sys.setswitchinterval(SWITCH_SECONDS)
    # What lives now lives to the end: the collector need not look at it again and again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)
