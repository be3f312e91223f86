"""The composition root: settings in; a gateway or a worker, wired, out. The only file that knows every concrete class."""

from __future__ import annotations

import asyncio
import socket

from litestar import Litestar, Router
from litestar.di import Provide
from litestar.types import ASGIApp

from gateway import interpreter
from gateway.api import catalog, describe, events, functions, health, keys, metrics, requests, runs, sources, steps
from gateway.api.conventions import Allowance, with_options, with_request_id
from gateway.api.deps import Deps, hash_key, is_known, refuse_unknown_parameters, require_key
from gateway.api.idempotency import idempotent
from gateway.api.inbound import Door
from gateway.api.problems import respond
from gateway.api.server import serve
from gateway.clock import Clock, system_clock
from gateway.core.spec import BrokenModule
from gateway.ids import new_api_key
from gateway.ingest.follow import Follower
from gateway.ingest.receive import Receiver
from gateway.ingest.reprocess import Reprocessor
from gateway.observe.meter import Meter
from gateway.registry import Registry, load_providers
from gateway.settings import Settings
from gateway.store import schema
from gateway.store.access import SaveKey
from gateway.store.apart import ProcessJournal
from gateway.store.cipher import load_cipher
from gateway.store.database import Database, open_database
from gateway.store.reads import Reads
from gateway.telemetry import Telemetry


class Gateway:
    """A gateway process: receives webhooks and serves the API."""

    def __init__(self, settings: Settings, telemetry: Telemetry, meter: Meter, clock: Clock = system_clock, *, process_id: str) -> None:
        schema.check(settings.resolved_database_url)
        self.settings = settings
        self.telemetry = telemetry
        self.meter = meter
        self.clock = clock
        self.cipher = load_cipher(settings.master_key, settings.data_dir, make=True)
        self.database: Database = open_database(settings.resolved_database_url)
        self.journal = ProcessJournal(settings.resolved_database_url, telemetry)
        self.reads = Reads(self.database)
        self.registry: Registry = load_providers(settings.providers)
        self.broken = [BrokenModule(found.file, found.message) for found in self.registry.broken]
        for found in self.registry.broken:
            telemetry.emit("module.broken", file=found.file, error=found.message, traceback=found.traceback)
        self.follower = Follower(
            id=process_id,
            settings=settings,
            providers=self.registry.providers,
            cipher=self.cipher,
            journal=self.journal,
            reads=self.reads,
            clock=clock,
            telemetry=telemetry,
        )
        self.live = self.follower.live
        self.new_api_key = self._first_key()
        self.app = self._application()

    def _first_key(self) -> str | None:
        """An admin key, made at the first start of all and told once; none where one is configured."""
        if self.settings.api_key is not None or self.settings.open_api:
            return None
        key = new_api_key()
        save = SaveKey("key_first", "made at the first start", hash_key(key), "admin", self.clock())
        return key if self.journal.submit(save).result() else None

    def _application(self) -> ASGIApp:
        own_keys = [self.cipher.local_api_key(), *filter(None, [self.settings.api_key])]
        receiver = Receiver(journal=self.journal, live=self.live, clock=self.clock, telemetry=self.telemetry)
        deps = Deps(
            process_id=self.follower.id,
            settings=self.settings,
            cipher=self.cipher,
            journal=self.journal,
            reads=self.reads,
            refresh=lambda: asyncio.to_thread(self.follower.refresh),
            live=self.live,
            receiver=receiver,
            reprocessor=Reprocessor(journal=self.journal, live=self.live, receiver=receiver, clock=self.clock),
            providers=self.registry.providers,
            broken=lambda: [*self.broken, *self.follower.broken],
            keys=tuple(hash_key(key) for key in own_keys),
            clock=self.clock,
            telemetry=self.telemetry,
        )
        self.door = Door(receiver, self.settings.max_body_bytes)
        return self._api(deps)

    def _api(self, deps: Deps) -> ASGIApp:
        api = Router(
            "/api/v1",
            guards=[require_key],
            before_request=refuse_unknown_parameters,
            route_handlers=[
                events.list_events, events.count_events, events.get_event, events.list_event_deliveries, events.send_events,
                events.replay_event, requests.list_requests, requests.count_requests, requests.get_request,
                requests.get_request_raw, requests.reprocess_request, requests.reprocess_requests, requests.discard_request,
                runs.list_runs, runs.count_runs, runs.get_run, runs.list_run_attempts, runs.list_run_logs, runs.cancel_run,
                runs.retry_run, steps.list_run_steps, steps.send_signal,
                runs.list_deliveries, runs.count_deliveries, functions.list_functions,
                functions.get_function, functions.pause_function, functions.resume_function, functions.invoke_function,
                catalog.list_event_types, catalog.get_event_type, catalog.list_providers, catalog.get_provider,
                sources.list_sources, sources.create_source, sources.get_source, sources.change_source,
                sources.delete_source, sources.enable_source, sources.disable_source, sources.add_source_secret,
                sources.change_source_secret, sources.remove_source_secret, sources.test_source, keys.list_keys, keys.create_key,
                keys.revoke_key,
            ],
        )  # fmt: skip
        app = Litestar(
            route_handlers=[api, health.get_health, health.get_readiness, metrics.get_metrics],
            dependencies={"deps": Provide(lambda: deps, sync_to_thread=False)},
            exception_handlers={Exception: respond, 500: respond},
            openapi_config=describe.config(),
            request_max_body_size=self.settings.max_body_bytes,
            logging_config=None,
            signature_types=[Deps],
        )
        app.state.deps = deps
        app.state.telemetry = self.telemetry

        with_answers = idempotent(
            app,
            journal=self.journal,
            cipher=self.cipher,
            clock=self.clock,
            is_known=lambda key: is_known(deps, key),
            max_body_bytes=self.settings.max_body_bytes,
        )
        allowance = Allowance(self.settings.api_calls_per_minute, self.clock)
        return with_request_id(allowance.limit(with_options(with_answers)))

    def close(self) -> None:
        """Write what is queued and close the store."""
        self.journal.close()
        self.database.close()


async def serve_gateway(gateway: Gateway, listener: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT, then let open requests end."""
    journal = gateway.journal
    await journal.attach()
    tasks = [asyncio.create_task(task) for task in (gateway.follower.run(), journal.watch(), gateway.meter.run(journal))]
    interpreter.tune()
    try:
        await serve(gateway.app, gateway.door, listener)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await asyncio.to_thread(gateway.close)
