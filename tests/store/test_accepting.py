"""The short way and the long way of accepting come to the same, on both databases."""

from __future__ import annotations

from gateway.ids import new_id
from gateway.store.inbox import Accept, Accepted, EventRecord, NewDelivery, Once, RequestRecord, key_hash

NOW = 1_800_000_000_000_000


def accept(key: str, *deliveries: NewDelivery, name: str = "shop/sold", event_id: str = "", data: bytes = b'{"n": 1}') -> Accept:
    request = RequestRecord(new_id("req"), "shop", NOW, "POST", "/webhooks/shop?a=%00&b=\u00e9", b'[["x", "\\u0000"]]', data, 0)
    who, trace = b'{"who": "\\u0000"}', f"00-{'a' * 32}-{'b' * 16}-01"
    event = EventRecord(event_id or new_id("evt"), name, "shop", key, NOW - 5, NOW, who, request.id, "", None, trace)
    return Accept(event, deliveries, request)


def run(function_id: str, **more) -> NewDelivery:
    return NewDelivery(function_id, 5, new_id("run"), **more)


def skipped(function_id: str) -> NewDelivery:
    return NewDelivery(function_id, 0, None, "if_false")


def rows(store, sql: str, *parameters) -> list[tuple]:
    return [tuple(row.values()) for row in store.database.read(sql, parameters)]


def committed(store, *commands: Accept) -> list[Accepted]:
    """The results of a group, committed in one transaction."""
    with store.database.transaction() as tx:
        return Accept.execute(tx, commands)


def test_every_member_of_a_webhook_is_kept_as_it_was(store):
    given = accept("k", run("f", held=2, queued_as="f@3"), skipped("g"))
    committed(store, given)
    event, request, made = given.event, given.request, given.deliveries[0]
    [found] = store.database.read("select * from events")
    for member in EventRecord.__struct_fields__:
        assert found[member] == getattr(event, member), member
    [found] = store.database.read("select * from requests")
    for member in RequestRecord.__struct_fields__:
        assert found[member] == getattr(request, member), member
    assert (found["status"], found["reason"], found["event_id"]) == ("accepted", None, event.id)
    assert rows(store, "select event_id, function_id, replay_id, run_id, skip_reason from deliveries order by function_id") == [
        (event.id, "f", "", made.run_id, None),
        (event.id, "g", "", None, "if_false"),
    ]
    assert rows(store, "select id, event_id, function_id, created_at, attempts, outcome from runs") == [
        (made.run_id, event.id, "f", NOW, 0, None)
    ]
    assert rows(store, "select run_id, function_id, due_at, priority, held, attempt, max_attempts, fence from queue") == [
        (made.run_id, "f@3", NOW, 0, 2, 0, 5, 0)
    ]


def test_g2_new_ones_and_duplicates_of_all_kinds_in_one_group_are_told_apart(store):
    first = accept("old", run("f"))
    assert committed(store, first) == [Accepted(first.event.id, False)]
    once = Once(b"o" * 16, NOW + 1)
    group = [
        accept("new 1", run("f"), run("g")),
        accept("old", run("f")),
        accept("twice", run("f")),
        accept("none"),
        accept("twice", run("f")),
        accept("idempotent", run("f", once=once)),
        accept("idempotent too", run("f", once=once)),
        accept("idempotent", run("f", once=once)),
        accept("old", run("f")),
    ]
    ids = [command.event.id for command in group]
    assert committed(store, *group) == [
        Accepted(ids[0], False),
        Accepted(first.event.id, True),
        Accepted(ids[2], False),
        Accepted(ids[3], False),
        Accepted(ids[2], True),
        Accepted(ids[5], False),
        Accepted(ids[6], False),
        Accepted(ids[5], True),
        Accepted(first.event.id, True),
    ]
    assert rows(store, "select id from events order by id") == sorted(
        (id_,) for id_ in [first.event.id, *(ids[n] for n in (0, 2, 3, 5, 6))]
    )
    assert rows(store, "select status, count(*) as n from requests group by status order by status") == [("accepted", 6), ("duplicate", 4)]
    assert rows(store, "select count(*) as n from runs") == rows(store, "select count(*) as n from queue") == [(5,)]
    assert rows(store, "select skip_reason from deliveries where run_id is null") == [("idempotent",)]


def test_g2_keys_that_begin_alike_or_hold_anything_are_told_apart(store):
    keys = [*(f"evt_1NG8Du2eZvKYlo2C{end}" for end in ("", "UI79vXWy", "UI79vXWz")), "e", "é" * 16, "é" * 17, "\uffff", "漢" * 40]
    group = [accept(key, run("f")) for key in keys]
    assert not any(accepted.duplicate for accepted in committed(store, *group))
    again = committed(store, *[accept(key, run("f")) for key in keys])
    assert again == [Accepted(first.event.id, True) for first in group]


def test_g2_what_was_kept_before_schema_0007_is_still_known(store):
    first, second = accept("old 1", run("f")), accept("old 2", run("f"))
    committed(store, first, second)
    with store.database.transaction() as tx:
        tx.rows("delete from idempotency_keys returning key")
        old = [(key_hash("shop", c.event.key), c.event.id, NOW) for c in (first, second)]
        tx.insert("idempotency_hashes", ("key_hash", "event_id", "created_at"), old)
    new = accept("new", run("f"))
    group = [new, accept("old 1", run("f")), accept("new", run("f")), accept("old 1", run("f"))]
    assert committed(store, *group) == [
        Accepted(new.event.id, False),
        Accepted(first.event.id, True),
        Accepted(new.event.id, True),
        Accepted(first.event.id, True),
    ]
    assert committed(store, second) == [Accepted(second.event.id, False)]  # the same command, whose answer got lost
    assert rows(store, "select count(*) as n from events") == rows(store, "select count(*) as n from runs") == [(3,)]


def test_g3_a_group_that_is_repeated_because_its_answer_got_lost_makes_nothing_twice(store):
    group = [accept(f"k {n}", run("f"), run("g")) for n in range(20)]
    before = committed(store, *group[:15])
    store.database.read("select 1 as one")
    with store.database.transaction() as tx:  # some have ended meanwhile
        tx.delete("queue", ("run_id",), [(group[n].deliveries[0].run_id,) for n in range(10)])
    assert committed(store, *group)[:15] == before
    assert rows(store, "select count(*) as n from events") == [(20,)]
    assert rows(store, "select count(*) as n from runs") == [(40,)]
    assert rows(store, "select count(*) as n from queue") == [(30,)]


def test_what_something_may_wait_for_arrives_by_the_short_way_too(store):
    with store.database.transaction() as tx:
        tx.insert("wait_paths", ("name", "path", "created_at", "mark", "settled"), [("shop/paid", "", NOW, tx.mark(), 1)])
    waited, other = accept("a", run("f"), name="shop/paid"), accept("b", run("f"), name="shop/sold")
    committed(store, waited, other)
    assert rows(store, "select event_id, seen from arrivals") == [(waited.event.id, 0)]
    assert rows(store, "select count(*) as n from queue") == [(2,)]
