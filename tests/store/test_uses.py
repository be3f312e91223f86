"""What is noted of sources, secrets and keys, by several processes at once."""

from __future__ import annotations

from concurrent.futures import wait

from gateway.core.spec import FunctionSpec, Manifest
from gateway.store.access import CreateSource, NoteUses, SaveKey, SaveSource
from gateway.store.admin import FreeResumed, Pause, Resume
from gateway.store.database import open_database
from gateway.store.inbox import Accept, EventRecord, NewDelivery
from gateway.store.offers import Publish
from gateway.store.runs import Claim, Heartbeat
from gateway.store.threaded import ThreadJournal


def twice(store, commands) -> list[tuple[object, object]]:
    """Each command by two processes at once."""
    database = open_database(store.url)
    other = ThreadJournal(database)
    try:
        pairs = [(store.journal.submit(command(1)), other.submit(command(2))) for command in commands]
        wait([future for pair in pairs for future in pair], timeout=20)
        return [(one.result(0), two.result(0)) for one, two in pairs]
    finally:
        other.close()
        database.close()


def test_the_latest_use_stays_whichever_process_writes_it_down_last(store):
    for at in (100, 300, 200):
        store.do(NoteUses(secrets={("src_1", 0): at}))
    assert store.reads.secret_uses() == {("src_1", 0): 300}


def test_two_gateways_that_start_at_once_keep_the_same_source_and_key(store):
    def save(n: int):
        return lambda who: SaveSource(f"src_{who}_{n}", f"s{n}", "stripe", b"x", "TEST_WEBHOOK_SECRET", 1)

    assert twice(store, [save(n) for n in range(20)]) == [(True, True)] * 20
    assert store.count("sources") == 20
    keys = twice(store, [lambda who: SaveKey("key_first", "first", b"%d" % who, "admin", 1)])
    assert sorted(keys[0]) == [False, True]


def test_of_two_who_make_a_source_of_one_name_at_once_one_does(store):
    made = twice(store, [lambda who, n=n: CreateSource(f"src_{who}_{n}", f"s{n}", "stripe", b"x", 1) for n in range(20)])
    assert [sorted(pair) for pair in made] == [[False, True]] * 20


def test_a_configured_source_does_not_take_the_place_of_one_made_by_the_api(store):
    assert store.do(CreateSource("src_1", "shop", "stripe", b"by the api", 1))
    assert not store.do(SaveSource("src_2", "shop", "github", b"configured", "SHOP_WEBHOOK_SECRET", 2))
    assert [(row["origin"], row["provider"]) for row in store.reads.sources()] == [("api", "stripe")]


def test_what_was_noted_of_secrets_is_void_once_their_numbers_stand_for_others(store):
    def save(renumbered: bool) -> SaveSource:
        return SaveSource("src_1", "shop", "stripe", b"x", "SHOP_WEBHOOK_SECRET", 1, renumbered)

    store.do(save(False))
    store.do(NoteUses(secrets={("src_1", 0): 5, ("src_other", 0): 5}))
    store.do(save(False))
    assert ("src_1", 0) in store.reads.secret_uses()
    store.do(save(True))
    assert store.reads.secret_uses() == {("src_other", 0): 5}


def test_two_workers_that_publish_an_app_at_once_do(store):
    manifest = Manifest(specs=(FunctionSpec(id="f", on=("a/b",)),))
    assert twice(store, [lambda who, n=n: Publish(f"app-{n}", manifest, who) for n in range(20)]) == [(None, None)] * 20
    assert store.count("manifests") == 21


def test_a_run_held_by_a_gateway_that_heard_of_the_resume_last_is_freed(store):
    store.do(Heartbeat("wrk_1", "worker", "host", 1, 1, 10**9))
    store.do(Pause(("f",), 1))
    store.do(Resume(("f",)))
    event = EventRecord("evt_1", "a/b", "s", "k", 1, 1, b"{}", data=b"{}")
    store.do(Accept(event, (NewDelivery("f", 1, "run_1", held=2),)))
    assert store.do(Claim("wrk_1", ("f",), 10, 5)).runs == []
    store.do(FreeResumed())
    assert [run.run_id for run in store.do(Claim("wrk_1", ("f",), 10, 5)).runs] == ["run_1"]
    store.do(Pause(("f",), 6))
    store.do(Accept(EventRecord("evt_2", "a/b", "s", "l", 7, 7, b"{}", data=b"{}"), (NewDelivery("f", 1, "run_2", held=2),)))
    store.do(FreeResumed())
    assert store.reads.backlog(9)["paused"] == 1, "what is paused still stays so"
