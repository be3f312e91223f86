"""The worker's composition root, apart from the gateway's: a worker loads no web framework."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import msgspec

from gateway import codec, interpreter
from gateway.clock import DAY, Clock, system_clock
from gateway.core.spec import BrokenModule, EventSpec, FunctionSpec, Manifest
from gateway.engine.local import LocalInvoker
from gateway.engine.retention import Retention
from gateway.engine.worker import Worker
from gateway.errors import DeclarationError
from gateway.ids import new_id
from gateway.observe.meter import Meter
from gateway.registry import Broken, Registry, load_functions, shown
from gateway.sdk.event import Event
from gateway.settings import Settings
from gateway.store import schema
from gateway.store.database import open_database
from gateway.store.offers import Publish
from gateway.store.retention import Ages
from gateway.store.threaded import ThreadJournal
from gateway.telemetry import Telemetry


def publish(settings: Settings) -> Sequence[Broken]:
    """Find the functions and publish their specs; what was left out."""
    registry = load_functions(settings.functions)
    database = open_database(settings.resolved_database_url)
    journal = ThreadJournal(database)
    journal.submit(_publish(settings, registry, system_clock)).result()
    journal.close()
    database.close()
    return registry.broken


async def run_worker(
    settings: Settings,
    telemetry: Telemetry,
    meter: Meter,
    clock: Clock = system_clock,
    *,
    process_id: str | None = None,
    replaces: str | None = None,
) -> None:
    """Publish the functions found and run what is due, until SIGTERM or SIGINT.

    `replaces`: the process that died in this one's place: its runs are free at once, and not only when its lease is over.
    """
    schema.check(settings.resolved_database_url)
    registry = load_functions(settings.functions)
    for found in registry.broken:
        telemetry.emit("module.broken", file=found.file, error=found.message, traceback=found.traceback)
    database = open_database(settings.resolved_database_url)
    journal = ThreadJournal(database, telemetry)
    id = process_id or new_id("wrk")
    worker = Worker(
        id=id,
        database=database,
        journal=journal,
        invoker=LocalInvoker(registry.functions, clock),
        specs={queued_as: function.spec for queued_as, function in registry.functions.items()},
        clock=clock,
        telemetry=telemetry,
        concurrency=settings.concurrency,
        lease_seconds=settings.lease_seconds,
        shutdown_seconds=settings.shutdown_seconds,
        max_step_bytes=settings.max_step_bytes,
        max_run_bytes=settings.max_run_bytes,
        offer=_publish(settings, registry, clock, id),
        replaces=replaces,
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, worker.stop)
    interpreter.tune()
    retention = Retention(
        holder=worker.id,
        database=database,
        journal=journal,
        ages=_ages(settings),
        clock=clock,
        telemetry=_told_on(loop, telemetry),
    )
    retention.start()
    metering = asyncio.create_task(meter.run(journal))
    try:
        await worker.run()
    finally:
        metering.cancel()
        await asyncio.wait([metering])
        await asyncio.to_thread(retention.stop)
        await asyncio.to_thread(journal.close)
        database.close()


def _told_on(loop: asyncio.AbstractEventLoop, telemetry: Telemetry) -> Telemetry:
    """For facts of another thread: what listens to them counts on the loop."""

    def tell(name: str, facts: dict[str, Any]) -> None:
        loop.call_soon_threadsafe(partial(telemetry.emit, name, **facts))

    return Telemetry(tell)


def _ages(settings: Settings) -> Ages:
    failed, others, requests, keys = [
        int(days * DAY)
        for days in (
            settings.retention_failed_days,
            settings.retention_days,
            settings.retention_requests_days,
            settings.idempotency_days,
        )
    ]
    return Ages(failed=failed, others=others, requests=requests, keys=keys)


def _publish(settings: Settings, registry: Registry, clock: Clock, worker_id: str | None = None) -> Publish:
    manifest = Manifest(
        specs=tuple(_placed(function.spec) for function in registry.functions.values()),
        broken=tuple(BrokenModule(found.file, found.message) for found in registry.broken),
        events=tuple(_event_specs(registry)),
    )
    return Publish(settings.app, manifest, clock(), worker_id)


def _placed(spec: FunctionSpec) -> FunctionSpec:
    return msgspec.structs.replace(spec, origin=shown(spec.origin))


def _event_specs(registry: Registry) -> Iterator[EventSpec]:
    """The event classes that functions listen to: whoever asks the API learns what they look like."""
    kinds = {kind.event_name: kind for function in registry.functions.values() for kind in function.event_types}
    for name, kind in sorted(kinds.items()):
        yield EventSpec(name=name, schema=msgspec.Raw(codec.dumps(kind.data_schema())), sample=_sample(kind))


def _sample(kind: type[Event[Any]]) -> msgspec.Raw:
    with contextlib.suppress(DeclarationError):  # a sample without a JSON form is none
        return msgspec.Raw(codec.dumps(kind.sample))
    return msgspec.Raw(b"null")
