"""`tidegate runs replay RUN --local`: today's code against a recorded run."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec
import typer

from gateway.cli.output import Json
from gateway.core.outcome import Failure
from gateway.core.states import FINAL
from gateway.core.steps import Kind, Step, StepStatus
from gateway.errors import Forbidden, InvalidRequest, NotFound

if TYPE_CHECKING:
    from gateway.cli.client import Client
    from gateway.clock import Micros
    from gateway.registry import Registry
    from gateway.sdk.function import Function
    from gateway.store.runs import Claimed
    from gateway.testing.replay import Ending, Replay

T = TypeVar("T")
Payload = msgspec.Raw | msgspec.UnsetType

STYLES = {"same": "green", "moved": "yellow", "waiting": "dim", "new": "cyan", "other_kind": "red", "unreached": "red"}


class RecordedRun(msgspec.Struct):
    """What a replay needs to know of a run, as the API shows it."""

    id: str
    event_id: str
    function_id: str
    version: int | None
    status: str
    attempts: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    parent_run_id: str | None
    error: Failure | None
    output: Payload = msgspec.UNSET


class RecordedEvent(msgspec.Struct):
    """The run's event."""

    id: str
    name: str
    source: str
    occurred_at: datetime
    received_at: datetime
    traceparent: str | None
    attributes: msgspec.Raw
    data: Payload = msgspec.UNSET


class RecordedStep(msgspec.Struct):
    """One of its steps."""

    key: str
    kind: Kind
    status: StepStatus
    attempts: int
    started_at: datetime
    finished_at: datetime | None
    due_at: datetime | None
    error: Failure | None
    subject: str | None
    output: Payload = msgspec.UNSET


class RecordedSteps(msgspec.Struct):
    """All of them, in the order they began."""

    data: list[RecordedStep]


def replay(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="Its id, from `tidegate runs`.")],
    local: Annotated[bool, typer.Option("--local", help="Run the code that is here, on this machine.")] = False,
    path: Annotated[list[str] | None, typer.Option("--path", help="A further folder of functions.")] = None,
    as_json: Json = False,
) -> None:
    """Run today's code against what a run has recorded, without doing its steps again; shows what differs.

    Its steps give what they gave; one that is not in the record is not done, and the run stops there. The code between the
    steps does run. Nothing is written. Exit code 1 when anything differs.
    """
    from gateway.cli.client import Client
    from gateway.cli.output import print_json
    from gateway.cli.processes import override
    from gateway.testing.replay import replay as replayed

    override(path=path)
    client = Client()
    run = _read(client, f"/runs/{run_id}", RecordedRun)
    if not local:
        raise InvalidRequest(
            "`runs replay` tells what today's code would make of what a run has recorded, and does nothing: add --local, where the"
            f" code is. To run its event again for real: tidegate events replay {run.event_id}"
        )
    event = _read(client, f"/events/{run.event_id}", RecordedEvent)
    steps = _read(client, f"/runs/{run_id}/steps", RecordedSteps).data
    with contextlib.redirect_stdout(sys.stderr):  # modules and functions may print
        function, handles = _function(client, run)
    parent = _read(client, f"/runs/{run.parent_run_id}", RecordedRun) if handles and run.parent_run_id else None
    claimed = _claimed(function, run, event, steps, parent)
    with contextlib.redirect_stdout(sys.stderr):
        found = asyncio.run(replayed(function, claimed, _ending(run), _now(run, steps)))
    if as_json:
        print_json(msgspec.json.encode(found))
    else:
        _print(found)
    raise typer.Exit(1 if found.differences else 0)


def _read(client: Client, path: str, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(client.raw(path), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"What the gateway has at {path} cannot be replayed: {error}") from None


def _function(client: Client, run: RecordedRun) -> tuple[Function[Any], bool]:
    """The version that a run goes on with, of one that is final the newest; and whether it handles failures of another one."""
    from gateway.registry import load_functions

    registry = load_functions(client.settings.functions)
    versions = {one.spec.version: one for one in registry.functions.values() if one.id == run.function_id}
    if not versions:
        raise NotFound(f"There is no function {run.function_id!r} here. {_looked(registry)}")
    version = max(versions, key=lambda one: one or 0) if run.status in FINAL else run.version
    if version not in versions:
        there = ", ".join(_named(one) for one in sorted(versions, key=lambda one: one or 0))
        raise NotFound(f"The run goes on with {_named(version)} of function {run.function_id!r}; here there is only {there}.")
    function = versions[version]
    return function, any(one.failure is function for one in registry.functions.values())


def _named(version: int | None) -> str:
    return "the one without a version" if version is None else f"version {version}"


def _looked(registry: Registry) -> str:
    from gateway.registry import shown

    broken = "".join(f"; {shown(found.file)} was left out: {found.message}" for found in registry.broken)
    return f"These folders were looked through: {', '.join(map(shown, registry.places)) or 'none'}{broken}. Name more with --path."


def _claimed(
    function: Function[Any], run: RecordedRun, event: RecordedEvent, steps: list[RecordedStep], parent: RecordedRun | None
) -> Claimed:
    """The run as an invoker is given it, in its last attempt."""
    from gateway.store.runs import Claimed

    created_at = _micros(run.created_at)
    return Claimed(
        run_id=run.id,
        function_id=function.spec.queued_as,
        attempt=max(run.attempts, 1),
        max_attempts=function.spec.attempts,
        fence=1,
        first_started_at=created_at if run.started_at is None else _micros(run.started_at),
        due_at=created_at,
        event_id=event.id,
        event_name=event.name,
        source=event.source,
        occurred_at=_micros(event.occurred_at),
        received_at=_micros(event.received_at),
        attributes=bytes(event.attributes),
        traceparent=event.traceparent,
        data_path="",
        body=_payload(event.data) or b"null",
        created_at=created_at,
        parent_id=parent.id if parent is not None else None,
        parent_error=msgspec.json.encode(parent.error) if parent is not None and parent.error is not None else None,
        steps=tuple(_step(n, step) for n, step in enumerate(steps, 1)),
    )


def _step(position: int, step: RecordedStep) -> Step:
    return Step(
        key=step.key,
        kind=step.kind,
        status=step.status,
        position=position,
        attempts=step.attempts,
        started_at=_micros(step.started_at),
        finished_at=None if step.finished_at is None else _micros(step.finished_at),
        due_at=None if step.due_at is None else _micros(step.due_at),
        output=_payload(step.output),
        error=step.error,
        subject=step.subject,
    )


def _payload(raw: Payload) -> bytes | None:
    if raw is msgspec.UNSET:
        raise Forbidden("A replay needs what the run and its steps were given and returned: use an API key with the scope payload:read.")
    return None if bytes(raw) == b"null" else bytes(raw)


def _ending(run: RecordedRun) -> Ending:
    from gateway.testing.replay import Ending

    succeeded = run.status == "succeeded"
    return Ending(run.status, msgspec.Raw(_payload(run.output) or b"null") if succeeded else None, run.error)


def _now(run: RecordedRun, steps: list[RecordedStep]) -> Micros:
    """The time of the record: of a run that goes on, when it last did something."""
    if run.finished_at is not None:
        return _micros(run.finished_at)
    times = [run.created_at, run.started_at, *(time for step in steps for time in (step.started_at, step.finished_at))]
    return max(_micros(time) for time in times if time is not None)


def _micros(when: datetime) -> Micros:
    from gateway.clock import from_datetime

    return from_datetime(when)


def _print(found: Replay) -> None:
    from rich.text import Text
    from rich.tree import Tree

    from gateway.cli.output import console, print_error
    from gateway.core.steps import CALLS
    from gateway.testing.replay import MEANINGS

    version = "" if found.version is None else f", version {found.version}"
    console.print(f"{found.run_id} of {found.function_id}{version}, with the code that is here", markup=False)
    if found.steps:
        tree = Tree("steps")
        for step in found.steps:
            what = "" if step.kind == "run" else f"  {CALLS[step.kind]}{f' {step.subject}' if step.subject else ''}"
            tree.add(Text(f"{step.key}{what}  {MEANINGS[step.state]}", style=STYLES[step.state]))
        console.print(tree)
    console.print(f"recorded  {_told(found.recorded)}", markup=False)
    console.print(f"today     {_told(found.today)}", markup=False)
    if found.today.error is not None and found.differences:
        print_error(asdict(found.today.error))
    for difference in found.differences:
        console.print(Text(f"differs: {difference}", style="red"))
    if not found.differences:
        console.print("nothing differs")


def _told(ending: Ending) -> str:
    from gateway.cli.output import as_text

    if ending.error is not None:
        return f"{ending.status}  {ending.error.type}: {ending.error.message}".partition("\n")[0]
    if ending.output is not None:
        return f"{ending.status}  {as_text(bytes(ending.output))}"
    return ending.status
