"""Plain functions of authors, each in a thread of its own: one that hangs takes no place in a pool that others need."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from typing import Any


async def in_thread(call: Callable[[], Any], name: str) -> Any:
    """What `call` returns or raises, called in this context. When the caller is cancelled, the thread goes on by itself."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Any] = loop.create_future()

    def settle(result: Any, error: BaseException | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(result)
        else:
            done.set_exception(error)

    def run() -> None:
        try:
            result, error = carried.run(call), None
        except StopIteration as stop:
            result, error = None, RuntimeError(f"the function raised StopIteration: {stop}")
        except BaseException as raised:  # a thread's error belongs to its run, whatever it is
            result, error = None, raised
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, result, error)

    carried = contextvars.copy_context()
    threading.Thread(target=run, name=name, daemon=True).start()
    return await done
