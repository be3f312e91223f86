"""`/runs`: read, attempts, cancel, retry."""

from __future__ import annotations

import asyncio

from litestar import Response, get, post

from gateway.api import present
from gateway.api.deps import Deps
from gateway.api.filters import Cursor, Limit, Many, filters, with_status
from gateway.errors import Conflict
from gateway.store.admin import CancelRun, RetryRun
from gateway.store.reads import RUN_STATUS


@get("/runs")
async def list_runs(
    deps: Deps,
    limit: Limit = 50,
    cursor: Cursor = None,
    status: Many = None,
    function: Many = None,
    event: Many = None,
) -> Response[bytes]:
    """Runs, newest first."""
    query = with_status(filters(limit, cursor, {"r.function_id": function, "e.name": event}), status, RUN_STATUS)
    return present.page(await asyncio.to_thread(deps.reads.runs, query), present.run)


@get("/runs/{run_id:str}")
async def get_run(deps: Deps, run_id: str) -> Response[bytes]:
    """One run."""
    return present.json(present.run(await asyncio.to_thread(deps.reads.run, run_id)))


@get("/runs/{run_id:str}/attempts")
async def list_attempts(deps: Deps, run_id: str) -> Response[bytes]:
    """A run's ended attempts, in order."""
    await asyncio.to_thread(deps.reads.run, run_id)
    rows = await asyncio.to_thread(deps.reads.attempts, [run_id])
    return present.json({"data": [present.attempt(row) for row in rows]})


@post("/runs/{run_id:str}/cancel", opt={"scope": "replay"}, status_code=200)
async def cancel_run(deps: Deps, run_id: str) -> Response[bytes]:
    """Cancel a run that is not final; a worker that runs it is told at its next heartbeat."""
    row = await asyncio.to_thread(deps.reads.run, run_id)
    if not await deps.journal.commit(CancelRun(run_id, deps.clock())):
        raise Conflict(f"The run is {row['status']}; only a run that is not final can be cancelled.")
    return await get_run.fn(deps, run_id)


@post("/runs/{run_id:str}/retry", opt={"scope": "replay"}, status_code=200)
async def retry_run(deps: Deps, run_id: str) -> Response[bytes]:
    """Queue a failed or cancelled run again, with all its attempts."""
    row = await asyncio.to_thread(deps.reads.run, run_id)
    spec = deps.live.fanout.specs.get(row["function_id"])
    if spec is None:
        raise Conflict(f"Nobody offers the function {row['function_id']!r} any more.")
    if not await deps.journal.commit(RetryRun(run_id, spec.attempts, deps.clock())):
        raise Conflict(f"The run is {row['status']}; only a failed or cancelled run can be retried.")
    return await get_run.fn(deps, run_id)
