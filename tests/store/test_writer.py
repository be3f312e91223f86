"""The writer as a process of its own: nothing is lost between the two, whichever of them dies, and errors come through."""

from __future__ import annotations

import asyncio
import fcntl
import importlib
import os
import pickle
import pkgutil
import signal
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gateway.store
from gateway.errors import Overloaded, Unavailable
from gateway.ids import new_id
from gateway.store import frames, writer
from gateway.store.apart import ProcessJournal
from gateway.store.database import open_database
from gateway.store.inbox import Accept, EventRecord, NewDelivery, RequestRecord
from gateway.store.journal import Command
from tests.processes import children_of, post, site, until

NOW = 1_800_000_000_000_000


def accept(key: str, functions: tuple[str, ...] = ("f",), body: bytes = b"{}") -> Accept:
    request = RequestRecord(new_id("req"), "shop", NOW, "POST", "/webhooks/shop", b"[]", body, 0)
    event = EventRecord(new_id("evt"), "a/b", "shop", key, NOW, NOW, b"{}", request.id)
    return Accept(event, tuple(NewDelivery(name, 5, new_id("run")) for name in functions), request)


def kept(store) -> set[str]:
    return {row["id"] for row in store.database.read("select id from events")}


@pytest.fixture
def journal(store):
    made = ProcessJournal(store.url)
    yield made
    made.close()


def attached(journal, work) -> None:
    """Run `work()` on the loop that the journal is attached to."""

    async def run() -> None:
        await journal.attach()
        watching = asyncio.create_task(journal.watch())
        try:
            await work()
        finally:
            watching.cancel()
            await asyncio.to_thread(journal.close)

    asyncio.run(run())


@given(st.lists(st.binary(max_size=200), max_size=8), st.lists(st.integers(1, 50), min_size=1))
def test_what_goes_over_the_socket_comes_out_whole_and_in_order_however_it_is_cut(sent, cuts):
    stream = b"".join(frames._frame(number, value) for number, value in enumerate(sent))
    whole, received = frames.Frames(), []
    for n in range(10**6):
        if not stream:
            break
        size = cuts[n % len(cuts)]
        received += whole.feed(stream[:size])
        stream = stream[size:]
    assert received == list(enumerate(sent))


def test_g1_what_is_acknowledged_before_and_after_it_is_attached_is_there(store, journal):
    early = [journal.submit(accept(f"early {n}")).result() for n in range(3)]
    late = []

    async def work() -> None:
        late.extend(await asyncio.gather(*(journal.commit(accept(f"late {n}")) for n in range(700))))
        with ThreadPoolExecutor(4) as pool:
            futures = [pool.submit(lambda n=n: journal.submit(accept(f"thread {n}")).result(20)) for n in range(20)]
            late.extend([await asyncio.wrap_future(future) for future in futures])
        late.append(await asyncio.wrap_future(journal.submit(accept("from the loop"))))
        assert journal.queued == 0

    attached(journal, work)
    assert {accepted.event_id for accepted in [*early, *late]} == kept(store)
    assert len(kept(store)) == 3 + 700 + 20 + 1


def test_g3_an_event_that_cannot_be_kept_fails_no_neighbour_and_its_error_comes_through(store, journal):
    outcomes = []

    async def work() -> None:
        commands = [accept("good 1"), accept("bad", functions=("f", "f")), accept("good 2")]
        outcomes.extend(await asyncio.gather(*map(journal.commit, commands), return_exceptions=True))

    attached(journal, work)
    assert [isinstance(outcome, Exception) for outcome in outcomes] == [False, True, False]
    assert isinstance(outcomes[1], sqlite3.IntegrityError | psycopg.errors.UniqueViolation)
    assert len(kept(store)) == 2


def test_every_command_is_known_to_the_writer():
    modules = [importlib.import_module(f"gateway.store.{found.name}") for found in pkgutil.iter_modules(gateway.store.__path__)]
    kinds = {kind for module in modules for kind in vars(module).values() if isinstance(kind, type) and issubclass(kind, Command)}
    assert writer.commands() == kinds - {Command, writer.Unreadable}


class Text(str):
    """A plugin's own kind of text."""

    __slots__ = ()

    def __str__(self) -> str:
        return "something else"


class Data(bytes):
    """A plugin's own kind of bytes."""


class Number(int):
    """A plugin's own kind of number."""


def test_g2_values_of_a_providers_own_classes_are_kept_as_what_they_are(store, journal):
    made = accept("k")
    event = msgspec.structs.replace(made.event, key=Text("k"), data=Data(b"{}"), occurred_at=Number(5), data_path=Text("p"))
    assert journal.submit(Accept(event, made.deliveries, made.request)).result().event_id == event.id
    [row] = store.database.read("select key, data, occurred_at, data_path from events")
    assert {**row, "data": bytes(row["data"])} == {"key": "k", "data": b"{}", "occurred_at": 5, "data_path": "p"}
    assert journal.submit(accept("k")).result().duplicate


class Unknown(Command[None], frozen=True):
    """A command that the writer does not know."""

    event: EventRecord


def test_g3_a_command_that_cannot_be_sent_or_read_fails_no_neighbour_and_all_get_their_own_outcomes(store, journal):
    outcomes, commands = [], []

    async def work() -> None:
        for turn in range(3):
            unknown = Unknown(accept(f"unread {turn}").event)
            commands.extend([accept(f"a {turn}"), accept("unsent \ud800"), accept(Text(f"b {turn}")), unknown, accept(f"c {turn}")])
            waiting = []
            for command in commands[-5:]:
                try:
                    waiting.append(journal.commit(command))
                except UnicodeEncodeError as error:
                    waiting.append(asyncio.sleep(0, error))
            outcomes.extend(await asyncio.gather(*waiting, return_exceptions=True))
        assert journal.queued == 0

    attached(journal, work)
    for command, outcome in zip(commands, outcomes, strict=True):
        if command.event.key.startswith("un"):
            assert isinstance(outcome, Exception)
        else:
            assert outcome.event_id == command.event.id
    assert kept(store) == {command.event.id for command in commands if not command.event.key.startswith("un")}


def test_g1_what_could_not_be_sent_for_want_of_memory_is_refused_and_takes_nothing_else_along(store, journal):
    outcomes, commands = [], [accept(str(n)) for n in range(120)]

    class Short:
        def __init__(self, transport) -> None:
            self.transport = transport

        def write(self, data: bytes) -> None:
            raise MemoryError

        def abort(self) -> None:
            self.transport.abort()

    async def work() -> None:
        for turn in range(4):
            if turn == 1:
                journal._transport = Short(journal._transport)
            while True:
                try:
                    futures = [journal.commit(command) for command in commands[turn * 30 : turn * 30 + 30]]
                    break
                except Unavailable:
                    await asyncio.sleep(0.05)
            outcomes.extend(await asyncio.gather(*futures, return_exceptions=True))
        assert journal.queued == 0

    attached(journal, work)
    states = [outcome.state if isinstance(outcome, Unavailable) else outcome.event_id for outcome in outcomes]
    ids = [command.event.id for command in commands]
    assert states == [*ids[:30], *["writer_ended"] * 30, *ids[60:]]
    assert kept(store) == {*ids[:30], *ids[60:]}


def test_an_error_that_cannot_be_sent_is_told_in_words():
    class Own(Exception):
        pass

    result, error = writer._portable((None, Own("said so")))
    assert result is None
    assert "said so" in str(error)
    passed = writer._portable((None, Unavailable("x", state="disk_full")))[1]
    assert pickle.loads(pickle.dumps(passed)).state == "disk_full"


def test_g1_a_writer_that_is_killed_again_and_again_costs_no_acknowledged_event(store, journal):
    acknowledged, refused, deaths = [], [], 0

    async def send(n: int) -> None:
        for turn in range(60):
            try:
                acknowledged.append((await journal.commit(accept(f"{n} {turn}"))).event_id)
            except Unavailable as error:
                refused.append(error.state)
                await asyncio.sleep(0.05)

    async def work() -> None:
        nonlocal deaths
        senders = [asyncio.create_task(send(n)) for n in range(20)]
        while not all(sender.done() for sender in senders):
            await asyncio.sleep(0.3)
            os.kill(journal._process.pid, signal.SIGKILL)
            deaths += 1
        for _ in range(200):
            try:
                acknowledged.append((await journal.commit(accept("after all"))).event_id)
                return
            except Unavailable:
                await asyncio.sleep(0.05)

    attached(journal, work)
    assert set(acknowledged) <= kept(store)
    assert acknowledged
    assert deaths
    assert set(refused) <= {"writer_ended"}
    assert journal.health.trouble is None


def test_a_turn_that_somebody_keeps_is_refused_in_time_and_what_was_refused_is_no_second_event(tmp_path):
    from gateway.store import schema

    url = f"sqlite:///{tmp_path / 'test.db'}"
    schema.migrate(url)
    journal = ProcessJournal(url)
    command = accept("kept back")
    states, ids = [], []

    async def work() -> None:
        await journal.commit(accept("before"))
        with (tmp_path / "test.turn").open("rb") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)
            try:
                await journal.commit(command)
            except Unavailable as error:
                states.append(error.state)
        while not ids:
            try:
                ids.append((await journal.commit(command)).event_id)
            except Unavailable:
                await asyncio.sleep(0.05)

    attached(journal, work)
    assert states == ["locked"]
    assert ids == [command.event.id]
    database = open_database(url)
    assert len(database.read("select id from events")) == 2
    database.close()


def test_g10_a_writer_that_does_not_answer_is_no_reason_to_grow(store, journal):
    os.kill(journal._process.pid, signal.SIGSTOP)
    states = []

    async def work() -> None:
        waiting = []
        for n in range(5000):
            try:
                waiting.append(journal.commit(accept(str(n))))
            except Overloaded:
                break
        assert 4000 < len(waiting) < 5000
        states.extend({error.state for error in await asyncio.gather(*waiting, return_exceptions=True)})
        os.kill(journal._process.pid, signal.SIGCONT)

    attached(journal, work)
    assert states == ["stalled"]
    assert len(kept(store)) > 4000


ORPHAN = """
import os, sys, time
from gateway.store.apart import ProcessJournal
from gateway.store.frames import command_frame
from tests.store.test_writer import accept

journal = ProcessJournal(sys.argv[1])
journal.submit(accept("first")).result()
journal._channel.sendall(b"".join(command_frame(n, accept(str(n))) for n in range(300)))
print(journal._process.pid, flush=True)
time.sleep(60)
"""


def test_a_writer_whose_gateway_is_killed_writes_what_has_come_and_ends(store):
    root = str(Path(__file__).parent.parent.parent)
    process = subprocess.Popen([sys.executable, "-c", ORPHAN, store.url], stdout=subprocess.PIPE, cwd=root)
    assert process.stdout is not None
    with process.stdout as told:
        pid = int(told.readline())
    process.kill()
    process.wait()
    until(lambda: not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2][:3])
    assert len(kept(store)) == 301


def test_a_gateway_goes_on_when_its_writer_is_killed_and_both_end_with_the_signal(tmp_path):
    with site(tmp_path) as made:
        made.run("migrate")
        gateway = made.start("gateway")
        made.wait_ready()
        [pid] = made.writers()
        assert children_of(gateway.pid) == [pid]
        first = post(made.url(), "evt_1").json()["id"]
        os.kill(pid, signal.SIGKILL)
        until(lambda: "writer_ended" in made.log("gateway"))
        until(lambda: post(made.url(), "evt_2").status_code == 200)
        assert post(made.url(), "evt_1").json() == {"id": first, "duplicate": True}
        [second] = made.writers()
        assert second != pid
        for number in (signal.SIGINT, signal.SIGTERM):  # as a terminal or an init system sends to all
            os.kill(second, number)
        assert post(made.url(), "evt_3").status_code == 200
        gateway.terminate()
        assert gateway.wait(timeout=15) == 0
        assert not Path(f"/proc/{second}").exists()
