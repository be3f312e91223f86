"""Deaths at chosen commits: a worker process ends right before, or right after, its n-th commit, again and again; then count.

A pass sends a few programs, lets workers die one after the other, each at the commit chosen for it, and lets a last one live.
Run by scripts/crash steps for as long as asked, and for some passes by the tests.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway import codec
from gateway.clock import system_clock
from gateway.core.spec import Manifest
from gateway.core.waits import signal_hash
from gateway.ids import new_id
from gateway.ingest.fanout import Fanout
from gateway.store import schema
from gateway.store.database import open_database
from gateway.store.inbox import Accept, EventRecord
from gateway.store.offers import Publish
from gateway.store.runs import Rescue, Retire
from gateway.store.threaded import ThreadJournal
from gateway.store.waits import SendSignal
from tests.crash.mortal import Death, Side, live
from tests.crash.programs import Op, Program, all_functions, flat, make_up

PATIENCE = 60.0  # until a pass that has not ended counts as stuck
BETWEEN = 0.005
MOST_DEATHS = 100  # in one pass: each counts as an attempt of the runs that the worker held

# What is there as long as something is still to be done.
UNDONE = " union all ".join(
    f"select '{table}' as what, count(*) as n from {rows}"
    for table, rows in (
        ("queue", "queue"),
        ("waits", "waits"),
        ("endings", "endings"),
        ("arrivals", "arrivals where seen = 0"),
        ("runs", "runs where outcome is null"),
    )
)


@dataclass
class Tally:
    """What was done, and every promise that was broken, in words."""

    passes: int = 0
    runs: int = 0
    steps: int = 0
    executions: int = 0
    again: int = 0
    deaths: Counter[Side] = field(default_factory=Counter[Side])
    outcomes: Counter[str] = field(default_factory=Counter[str])
    broken: list[str] = field(default_factory=list[str])


@dataclass
class Sent:
    """A program's run, and what is still to come to it from elsewhere."""

    program: Program
    run_id: str
    to_come: list[Op]
    begun_at: float | None = None


class Grave:
    """One database, and the workers that die over it."""

    def __init__(self, url: str, folder: Path, tally: Tally, seed: int) -> None:
        self._url = url
        self._folder = folder
        self._tally = tally
        self._chance = random.Random(seed)
        self._context = multiprocessing.get_context("forkserver")  # of a warm process without threads
        self._context.set_forkserver_preload(["tests.crash.mortal"])
        schema.migrate(url)
        self._database = open_database(url)
        self._journal = ThreadJournal(self._database)
        manifest = Manifest(specs=tuple(one.spec for one in all_functions()))
        self._fanout = Fanout({"local": manifest})
        self._do(Publish("local", manifest, system_clock()))

    def close(self) -> None:
        self._journal.close()
        self._database.close()

    def play(self, made: Sequence[Program], deaths: Sequence[Death]) -> int:
        """One pass; returns how many of the deaths came about."""
        effects = self._folder / f"effects {self._tally.passes}"
        effects.touch()
        sent = [self._send(program) for program in made]
        done: list[tuple[Counter[str], Counter[str]]] = []
        for death in [*deaths, None]:
            if not self._let_live(effects, sent, death):
                break
            assert death is not None
            self._tally.deaths[death[1]] += 1
            done.append(self._committed(effects))
        self._tally.passes += 1
        self._judge(sent, _lines(effects), done)
        return len(done)

    def _let_live(self, effects: Path, sent: list[Sent], death: Death | None) -> bool:
        """Whether a worker has died, as it was to, before everything was done."""
        worker_id = new_id("wrk")
        life = self._context.Process(target=live, args=(self._url, effects, worker_id, death), daemon=True)
        life.start()
        deadline = time.monotonic() + PATIENCE
        while life.is_alive():
            self._bring(sent)
            self._database.wake()
            if not self._undone() or time.monotonic() > deadline:
                break
            time.sleep(BETWEEN)  # what happens in the other process is only seen by looking
        died = not life.is_alive()
        life.kill()
        life.join()
        # As whoever takes a dead process's place does.
        self._do(Retire(worker_id))
        self._do(Rescue(system_clock()))
        if died and death is None:
            self._tally.broken.append(f"a worker ended by itself, with {life.exitcode}")
        return died and death is not None

    # What comes from elsewhere.

    def _send(self, program: Program) -> Sent:
        run_id = self._event(program.trigger, program.data)
        if program.trigger == "crash/patient":
            return Sent(program, run_id, [{"kind": "cancel", "id": "", "comes": self._chance.choice(("early", "any", "late"))}])
        return Sent(program, run_id, [op for op in flat(program.ops) if op["kind"] in ("event", "picky", "signal")])

    def _bring(self, sent: Sequence[Sent]) -> None:
        begun = {row["run_id"] for row in self._database.read("select run_id from queue where first_started_at is not null")}
        waits = {(row["run_id"], row["key"]) for row in self._database.read("select run_id, key from waits")}
        for one in sent:
            if one.begun_at is None and one.run_id in begun:
                one.begun_at = time.monotonic() + self._chance.uniform(0, 0.1)
            for op in list(one.to_come):
                if self._is_time(one, op, waits):
                    one.to_come.remove(op)
                    self._bring_one(one, op)

    def _is_time(self, one: Sent, op: Op, waits: set[tuple[str, str]]) -> bool:
        match op.get("comes", "late"):
            case "early":
                return one.begun_at is not None or op["kind"] == "cancel"
            case "any":
                return one.begun_at is not None and time.monotonic() > one.begun_at
            case _:
                return (one.run_id, "for ever" if op["kind"] == "cancel" else op["id"]) in waits

    def _bring_one(self, one: Sent, op: Op) -> None:
        key = op["id"]
        value = {key: one.program.data["waits"].get(key)}
        match op["kind"]:
            case "cancel":
                self._event("crash/cancelled", {"label": one.program.label})
            case "signal":
                self._do(SendSignal(signal_hash(f"{one.run_id} {key}"), codec.dumps(key), system_clock()))
            case "picky":
                self._event(op["name"], {"waits": value, "good": False, "says": "the wrong one"})
                self._event(op["name"], {"waits": value, "good": True, "says": key})
            case _:
                self._event(op["name"], {"waits": value, "says": key})

    def _event(self, name: str, data: Any) -> str:
        """Accept an event; the id of its run, if it has one."""
        now, event_id, raw = system_clock(), new_id("evt"), codec.dumps(data)
        event = EventRecord(event_id, name, "test", event_id, now, now, b"{}", data=raw)
        deliveries = self._fanout.deliveries(event, raw)
        self._do(Accept(event, deliveries))
        return next((delivery.run_id for delivery in deliveries if delivery.run_id), "")

    def _do(self, command: Any) -> Any:
        return self._journal.submit(command).result(timeout=20)

    # The count.

    def _undone(self) -> dict[str, int]:
        return {row["what"]: row["n"] for row in self._database.read(UNDONE) if row["n"]}

    def _committed(self, effects: Path) -> tuple[Counter[str], Counter[str]]:
        """The steps that are committed while nobody lives, and how often all have been executed by now."""
        rows = self._database.read("select run_id, key from steps where status in ('succeeded', 'failed')")
        return Counter(f"{row['run_id']} {row['key']}" for row in rows), _lines(effects)

    def _judge(self, sent: Sequence[Sent], lines: Counter[str], done: Sequence[tuple[Counter[str], Counter[str]]]) -> None:
        tally, deaths = self._tally, len(done)
        tally.broken += [f"left behind: {what} {n}" for what, n in self._undone().items()]
        for committed, before in done:
            tally.broken += [f"committed, and executed again: {key}" for key in committed if lines[key] != before[key]]
        due = Counter[str]()
        for one in sent:
            due.update(self._judge_run(one, deaths))
        tally.executions += lines.total()
        tally.again += lines.total() - due.total()
        itself = {line for line in lines if line.endswith((" itself", " handled"))}
        for key in {*lines, *due} - itself:
            first = key.endswith(" first")  # of a run that may have been cancelled before it came to it
            if not (0 if first else due[key]) <= lines[key] <= max(due[key], first) + deaths:
                tally.broken.append(f"executed {lines[key]} times, not {due[key]}, with {deaths} deaths: {key}")

    def _judge_run(self, one: Sent, deaths: int) -> Iterator[str]:
        """Judge a run and what has come from it; how often each of its steps is executed when nobody dies."""
        tally, program, run_id = self._tally, one.program, one.run_id
        run = self._run(run_id)
        output = None if run["output"] is None else codec.loads(bytes(run["output"]))
        tally.runs += 1
        tally.outcomes[str(run["outcome"])] += 1
        if (run["outcome"], output) != (program.outcome, program.output):
            tally.broken.append(f"{program} ended as {run['outcome']}, with {output}: {run['error']}")
        stumbles = sum(op["kind"] == "stumble" for op in program.ops)
        if (run["attempts"] or 0) > 1 + deaths + stumbles:
            tally.broken.append(f"{run_id}: {run['attempts']} attempts with {deaths} deaths")
        tally.steps += self._database.read("select count(*) as n from steps where run_id = ?", [run_id])[0]["n"]
        for key, times in program.effects():
            yield from [f"{run_id} {key}"] * times
        for op in flat(program.ops):
            if op["kind"] in ("invoke", "failing"):
                yield from self._judge_children(run_id, op)
            if op["kind"] == "send":
                yield from self._judge_sent(run_id, op)
        self._judge_end(run_id, program.outcome)

    def _judge_children(self, run_id: str, op: Op) -> Iterator[str]:
        rows = self._database.read("select id, outcome from runs where parent_id = ? and parent_key = ?", [run_id, op["id"]])
        outcome = "failed" if op["kind"] == "failing" else "succeeded"
        if [row["outcome"] for row in rows] != [outcome]:
            self._tally.broken.append(f"children of {run_id} {op['id']}: {[dict(row) for row in rows]}")
        for row in rows:
            yield f"{row['id']} work"
            self._judge_end(row["id"], outcome, handled=False)

    def _judge_sent(self, run_id: str, op: Op) -> Iterator[str]:
        for n in range(op["count"]):
            data = codec.dumps(f"{run_id} {op['id']} {n}")
            sql = "select r.id, r.outcome from events e join runs r on r.event_id = e.id where e.name = 'crash/sent' and e.data = ?"
            rows = self._database.read(sql, [data])
            if [row["outcome"] for row in rows] != ["succeeded"]:
                self._tally.broken.append(f"sent by {data.decode()}: {[dict(row) for row in rows]}")
            yield from (f"{row['id']} work" for row in rows)

    def _judge_end(self, run_id: str, outcome: str, *, handled: bool = True) -> None:
        """A failure is handled once, and every end that is none of success is told once."""
        handlers = self._database.read("select outcome from runs where parent_id = ? and parent_key is null", [run_id])
        if [row["outcome"] for row in handlers] != ["succeeded"] * (handled and outcome == "failed"):
            self._tally.broken.append(f"handlers of {run_id}: {[dict(row) for row in handlers]}")
        name = f"tidegate/function.{outcome}"
        events = self._database.read("select data from events where name = ?", [name])
        told = sum(codec.loads(bytes(row["data"]))["run_id"] == run_id for row in events)
        if told != (outcome != "succeeded"):
            self._tally.broken.append(f"{name} of {run_id} was sent {told} times")

    def _run(self, run_id: str) -> Any:
        return self._database.read("select outcome, output, error, attempts from runs where id = ?", [run_id])[0]


def _lines(effects: Path) -> Counter[str]:
    return Counter(effects.read_text().splitlines())


def ordeal(grave: Grave, chance: random.Random, count: int, label: str) -> None:
    """Programs whose workers all die after few commits, until there is nothing left to do."""
    deaths: list[Death] = [(chance.randint(2, 6), chance.choice(("before", "after"))) for _ in range(MOST_DEATHS)]
    grave.play([make_up(chance, f"{label}_{i}") for i in range(count)], deaths)


def main() -> int:
    """`scripts/crash steps [SECONDS] [DATABASE_URL]`: print the tally; exit code 1 when a promise was broken."""
    parser = argparse.ArgumentParser("scripts/crash steps", description="Let workers die before and after commits of steps, then count.")
    parser.add_argument("seconds", type=float, nargs="?", default=60.0, help="how long (60)")
    parser.add_argument("database_url", nargs="?", default="", help="postgresql://… of an empty database (SQLite)")
    given = parser.parse_args()
    seed = int(os.environ.get("CRASH_SEED", str(random.randrange(10**6))))
    chance, tally = random.Random(seed), Tally()
    with tempfile.TemporaryDirectory() as folder:
        grave = Grave(given.database_url or f"sqlite:///{folder}/tidegate.db", Path(folder), tally, seed)
        deadline = time.monotonic() + given.seconds
        while time.monotonic() < deadline and not tally.broken:
            ordeal(grave, chance, chance.randint(1, 8), f"p{tally.passes}")
        grave.close()
    print(f"seed {seed}, {tally.passes} passes, deaths right before a commit {tally.deaths['before']}, right after {tally.deaths['after']}")
    print(f"{tally.runs} runs with {tally.steps} steps ended: {dict(tally.outcomes)}")
    print(f"{tally.executions} executions of steps, {tally.again} of them again because a death came before their commit")
    print("\n".join(["A PROMISE WAS BROKEN", *tally.broken]) if tally.broken else "every promise held")
    return 1 if tally.broken else 0


if __name__ == "__main__":
    sys.exit(main())
