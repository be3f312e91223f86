"""What is offered, while workers with different code come and go."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import Future

import pytest

from gateway.core.spec import FunctionSpec, Manifest, current
from gateway.store.database import open_database
from gateway.store.inbox import Accept, EventRecord, NewDelivery
from gateway.store.offers import Publish
from gateway.store.reads import Reads
from gateway.store.runs import Heartbeat, Rescue, Retire
from gateway.store.threaded import ThreadJournal

NOW = 1_800_000_000_000_000
LEASE = 10_000_000
_times = itertools.count(NOW)


def code(*names: str) -> Manifest:
    """A manifest of functions such as `f`, or `f@2` for a version."""
    split = [name.partition("@") for name in names]
    return Manifest(specs=tuple(FunctionSpec(id=id, on=("a/b",), version=int(version) if version else None) for id, _, version in split))


def starts(store, worker: str, *names: str, app: str = "local") -> None:
    store.do(Heartbeat(worker, "worker", "host", 1, NOW, LEASE))
    store.do(Publish(app, code(*names), next(_times), worker))


def offered(store) -> set[str]:
    return {spec.queued_as for manifest in store.reads.apps().values() for spec in manifest.specs}


def queue(store, name: str) -> str:
    key = f"{name} {next(_times)}"
    event = EventRecord(f"evt_{key}", "a/b", "s", key, NOW, NOW, b"{}", data=b"{}")
    store.do(Accept(event, (NewDelivery(name.partition("@")[0], 5, f"run_{key}", queued_as=name),)))
    return f"run_{key}"


def is_held(store, run_id: str) -> bool:
    return store.database.read("select held from queue where run_id = ?", [run_id])[0]["held"] == 1


def test_what_any_living_worker_of_an_app_offers_is_offered(store):
    starts(store, "all", "f", "g", "h")
    starts(store, "few", "g")
    assert offered(store) == {"f", "g", "h"}
    store.do(Retire("few"))
    assert offered(store) == {"f", "g", "h"}


def test_what_a_deploy_has_taken_out_is_offered_until_the_last_old_worker_is_gone(store):
    starts(store, "old 1", "f", "gone")
    starts(store, "old 2", "f", "gone")
    starts(store, "new 1", "f", "added")
    run_id = queue(store, "gone")
    store.do(Retire("old 1"))
    assert offered(store) == {"f", "gone", "added"}
    assert not is_held(store, run_id)
    store.do(Retire("old 2"))
    assert offered(store) == {"f", "added"}
    assert is_held(store, run_id)


def test_an_old_version_is_offered_beside_the_new_one_and_new_runs_get_the_highest_whoever_starts_last(store):
    starts(store, "old", "f@1")
    sleeping = queue(store, "f@1")
    starts(store, "new", "f@2")
    assert not is_held(store, sleeping)
    starts(store, "old again", "f@1")
    specs = [spec for manifest in store.reads.apps().values() for spec in manifest.specs]
    assert current(specs)["f"].version == 2


def test_after_a_rollback_the_version_that_was_taken_back_is_offered_no_more(store):
    starts(store, "old", "f@1")
    starts(store, "new", "f@2")
    store.do(Retire("new"))
    assert offered(store) == {"f@1"}


def test_a_worker_that_dies_offers_nothing_once_its_lease_is_over(store):
    starts(store, "dies", "f", "g")
    starts(store, "lives", "f")
    run_id = queue(store, "g")
    store.do(Rescue(NOW))
    assert offered(store) == {"f", "g"}
    store.do(Heartbeat("lives", "worker", "host", 1, NOW + LEASE, LEASE))
    later = NOW + LEASE + 5 if store.url.startswith("sqlite") else NOW
    if store.url.startswith("postgresql"):  # whose own clock says when a lease is over
        store.do(Heartbeat("dies", "worker", "host", 1, NOW, -LEASE))
    store.do(Rescue(later))
    assert offered(store) == {"f"}
    assert is_held(store, run_id)
    # It was only asleep, and offers again what it has.
    store.do(Heartbeat("dies", "worker", "host", 1, NOW + LEASE, LEASE))
    store.do(Publish("local", code("f", "g"), NOW, "dies"))
    assert offered(store) == {"f", "g"}
    assert not is_held(store, run_id)


def test_what_the_last_worker_has_offered_is_offered_when_none_lives(store):
    starts(store, "one", "f", "g")
    starts(store, "two", "g")
    store.do(Retire("one"))
    store.do(Retire("two"))
    assert offered(store) == {"g"}


def test_what_is_published_without_a_worker_replaces_what_nobody_offers(store):
    store.do(Publish("local", code("before"), next(_times)))
    store.do(Publish("local", code("after"), next(_times)))
    assert offered(store) == {"after"}
    starts(store, "other", "h", app="other")
    assert offered(store) == {"after", "h"}
    store.do(Retire("other"))
    assert offered(store) == {"after", "h"}, "each app has what was offered last"


def test_of_a_function_that_changed_the_newest_code_counts_though_an_old_worker_starts_again(store):
    def with_retries(retries: int) -> Manifest:
        return Manifest(specs=(FunctionSpec(id="f", on=("a/b",), retries=retries),))

    for worker, retries in (("old", 1), ("new", 2), ("old again", 1)):
        store.do(Heartbeat(worker, "worker", "host", 1, NOW, LEASE))
        store.do(Publish("local", with_retries(retries), next(_times), worker))
    assert [spec.retries for spec in store.reads.apps()["local"].specs] == [2]


@pytest.mark.parametrize("round", range(5))
def test_workers_that_come_while_others_go_are_never_left_out(store, round):
    """Each thread is a process: it starts, as one with this code has just ended, and what it offers must be there."""
    store.do(Publish("local", code("base"), 0))
    barrier, left_out = threading.Barrier(4), list[str]()

    def process(n: int) -> None:
        database = open_database(store.url)
        journal = ThreadJournal(database)

        def do(command: object) -> None:
            future: Future[object] = journal.submit(command)
            future.result(20)

        for turn in range(10):
            worker, name = f"w{n}-{turn}", f"f{(n + turn) % 2}"
            do(Heartbeat(worker, "worker", "host", 1, NOW, LEASE))
            barrier.wait(20)
            do(Publish("local", code(name), NOW, worker))
            names = {spec.queued_as for manifest in Reads(database).apps().values() for spec in manifest.specs}
            if name not in names:
                left_out.append(f"{worker} {name} {names}")
            do(Retire(worker))
        journal.close()
        database.close()

    threads = [threading.Thread(target=process, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert left_out == []
