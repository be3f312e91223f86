"""`gateway.testing`: what a test of one's own functions sees is what the engine would do, in no time."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from unittest.mock import AsyncMock, Mock

import pytest

from gateway import CancelOn, Context, Event, NonRetriableError, RetryAfterError, StepError, SyncContext, Timeouts, function, new_event
from gateway.errors import DeclarationError
from gateway.testing import Runner, Stuck, Unused, after, in_turn, run, run_async


@dataclass
class Order:
    id: int
    total: int = 0


class OrderPlaced(Event[Order], name="order/placed"):
    sample = {"id": 1, "total": 10}  # noqa: RUF012


class OrderShipped(Event[dict], name="order/shipped"): ...


class OrderCancelled(Event[dict], name="order/cancelled"): ...


def forbidden(*_: object) -> Order:
    raise AssertionError("the real thing was called")


@function(on=OrderPlaced, retries=2)
async def fulfil(ctx: Context[OrderPlaced]) -> Order:
    order = await ctx.step.run("load", forbidden, ctx.event.data.id)
    await ctx.step.sleep("cooling-off", days=3)
    shipped = await ctx.step.wait_for_event("shipped", OrderShipped, match="data.id", timeout=timedelta(days=7))
    if shipped is None:
        raise NonRetriableError("never shipped")
    return Order(order.id, order.total + 1)


@function(on="a/b")
async def waits(ctx: Context[Event]) -> object:
    return await ctx.step.wait_for_signal("approved", "approval-42")


def test_days_pass_in_no_time_and_results_come_back_typed():
    began = time.monotonic()
    trace = run(fulfil, OrderPlaced.new(Order(7)), steps={"load": {"id": 7, "total": 5}}, events=[OrderShipped.new({"id": 7})])
    assert time.monotonic() - began < 5
    assert trace.status == "succeeded"
    assert trace.output == Order(7, 6)
    assert (trace.slept, trace.duration) == (timedelta(days=3), timedelta(days=3))
    assert [(step.id, step.kind, step.status, step.stubbed) for step in trace.steps] == [
        ("load", "run", "succeeded", True),
        ("cooling-off", "sleep", "succeeded", False),
        ("shipped", "event", "succeeded", False),
    ]
    assert trace.step("load").output == {"id": 7, "total": 5}
    assert trace.step("shipped").output == {"id": 7}


def test_a_wait_times_out_when_its_time_has_come():
    trace = run(fulfil, steps={"load": Order(1)}, events=[after(OrderShipped.new({"id": 1}), days=11)])
    assert (trace.status, trace.duration) == ("failed", timedelta(days=10))
    assert trace.error is not None
    assert trace.error.message == "never shipped"
    with pytest.raises(AssertionError, match="never shipped"):
        _ = trace.output


def test_an_event_in_time_ends_the_wait_at_its_time():
    trace = run(fulfil, steps={"load": Order(1)}, events=[after(OrderShipped.new({"id": 1}), days=5)])
    assert (trace.status, trace.duration) == ("succeeded", timedelta(days=5))


def test_an_event_that_arrived_before_the_wait_began_is_not_missed():
    trace = run(fulfil, steps={"load": Order(1)}, events=[after(OrderShipped.new({"id": 1}), days=1)])
    assert (trace.status, trace.duration) == ("succeeded", timedelta(days=3))


def test_an_event_that_does_not_match_does_not_end_a_wait():
    trace = run(fulfil, steps={"load": Order(1)}, events=[after(OrderShipped.new({"id": 2}), days=4)])
    assert trace.status == "failed"


@pytest.mark.parametrize("handler", ["async", "plain"])
def test_a_step_is_tried_again_later_and_keeps_its_errors(handler):
    calls = []

    def charge(amount: int) -> int:
        calls.append(amount)
        if len(calls) < 3:
            raise TimeoutError(f"try {len(calls)}")
        return amount

    @function(on="a/b", retries=3)
    async def f(ctx: Context[Event]) -> int:
        return await ctx.step.run("charge", charge, 5)

    @function(on="a/b", retries=3)
    def g(ctx: SyncContext[Event]) -> int:
        return ctx.step.run("charge", charge, 5)

    trace = run(f if handler == "async" else g, {})
    assert (trace.output, calls) == (5, [5, 5, 5])
    step = trace.step("charge")
    assert (step.attempts, [error.message for error in step.errors]) == (3, ["try 1", "try 2"])
    assert timedelta(0) < trace.duration < timedelta(seconds=6)
    assert [attempt.number for attempt in trace.attempts] == [1]


def test_a_stub_is_an_error_a_callable_or_something_for_each_try():
    def never(x: int) -> int:
        raise AssertionError("the real thing was called")

    @function(on="a/b", retries=1)
    async def f(ctx: Context[Event]) -> list[object]:
        try:
            await ctx.step.run("fails", never, 1)
        except StepError as error:
            failed = error.type
        return [failed, await ctx.step.run("called", never, 2), await ctx.step.run("second-time", never, 3)]

    stubs = {"fails": ValueError, "called": lambda x: x * 10, "second-time": in_turn(TimeoutError("slow"), 4)}
    trace = run(f, {}, steps=stubs)
    assert trace.output == ["ValueError", 20, 4]
    assert (trace.step("fails").attempts, trace.step("second-time").attempts) == (2, 2)
    assert trace.step("fails").status == "failed"


def test_a_failed_assertion_in_a_stub_fails_the_test_and_is_not_tried_again():
    calls = []

    def ship(x: int) -> None:
        calls.append(x)
        assert x == 2, "wrong order"

    @function(on="a/b")
    async def f(ctx: Context[Event]) -> str:
        try:
            await ctx.step.run("ship", forbidden, 1)
        except BaseException:
            return "swallowed"
        return "shipped"

    with pytest.raises(AssertionError, match="wrong order"):
        run(f, {}, steps={"ship": ship})
    assert calls == [1]


def test_pytest_fail_in_a_stub_fails_the_test():
    @function(on="a/b")
    async def f(ctx: Context[Event]) -> None:
        await ctx.step.run("ship", forbidden, 1)

    with pytest.raises(pytest.fail.Exception, match="not this one"):
        run(f, {}, steps={"ship": lambda _: pytest.fail("not this one")})


def test_a_mock_is_a_stub_that_tells_what_it_was_called_with():
    @function(on="a/b")
    async def f(ctx: Context[Event]) -> list[Order]:
        return [await ctx.step.run("plain", forbidden, 1), await ctx.step.run("async", forbidden, 2)]

    plain, coroutine = Mock(return_value={"id": 3}), AsyncMock(return_value={"id": 4})
    assert run(f, {}, steps={"plain": plain, "async": coroutine}).output == [Order(3), Order(4)]
    plain.assert_called_once_with(1)
    coroutine.assert_awaited_once_with(2)


def test_a_stub_stands_for_every_use_of_an_id_and_a_nearer_one_goes_first():
    @function(on="a/b")
    async def f(ctx: Context[Event]) -> list[object]:
        loop = [await ctx.step.run("ship", forbidden) for _ in range(3)]
        return [*loop, *await ctx.step.map("pack", forbidden, [1, 2])]

    assert run(f, {}, steps={"ship": Order(1), "ship#2": Order(2), "pack": lambda n: Order(n)}).output == [
        {"id": n, "total": 0} for n in (1, 2, 1, 1, 2)
    ]


def test_the_function_is_tried_again_and_remembers_its_steps():
    done = []

    @function(on="a/b", retries=2)
    async def f(ctx: Context[Event]) -> int:
        await ctx.step.run("once", done.append, 1)
        if ctx.attempt == 1:
            raise RetryAfterError(timedelta(minutes=5))
        if ctx.attempt == 2:
            raise ValueError("again")
        return ctx.attempt

    trace = run(f, {})
    assert (trace.output, done) == (3, [1])
    assert [(one.number, one.outcome) for one in trace.attempts] == [(1, "failed"), (2, "failed"), (3, "succeeded")]
    assert trace.duration >= timedelta(minutes=5)


def test_a_signal_comes_when_it_is_waited_for_or_at_its_time():
    assert run(waits, {}, signals={"approval-42": {"by": "Ada"}}).output == {"by": "Ada"}
    assert run(waits, {}, signals={"approval-42": after("yes", hours=2)}).duration == timedelta(hours=2)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, r"step 'approved' waits for the signal 'approval-42', without a timeout: give signals="),
        ({"signals": {"approval-43": 1}}, r"step 'approved' waits for the signal 'approval-42'"),
    ],
)
def test_a_wait_that_nothing_ends_says_which_step_waits_for_what(given, said):
    with pytest.raises(Stuck, match=said):
        run(waits, {}, **given)


def test_a_child_that_waits_for_ever_is_named_with_its_step():
    @function(on="c/d")
    async def parent(ctx: Context[Event]) -> object:
        return await ctx.step.invoke("child", waits)

    with pytest.raises(Stuck, match="step 'child' waits for a run of 'waits', in which step 'approved' waits for the signal"):
        run(parent, {}, functions=[waits])


def test_an_event_that_fits_nothing_is_told_when_the_run_is_stuck():
    @function(on=OrderPlaced)
    async def f(ctx: Context[OrderPlaced]) -> None:
        await ctx.step.wait_for_event("shipped", OrderShipped, match="data.id")

    with pytest.raises(Stuck, match=r"'order/shipped' whose `data\.id` is that of the run's event, .*none of those given fits"):
        run(f, events=[OrderShipped.new({"id": 2})])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"steps": {"laod": 1}}, r"stub 'laod' was not used: the steps that can be stubbed were 'load'"),
        ({"steps": {"load": 1}, "events": [new_event("order/shiped")]}, r"event 'order/shiped' was not used: nothing was waited for"),
        ({"steps": {"load": 1}, "signals": {"x": after(1, hours=1)}}, r"signal 'x' was not used"),
    ],
)
def test_what_is_given_and_not_used_is_an_error_that_says_what_there_is(given, said):
    @function(on="a/b")
    async def f(ctx: Context[Event]) -> int:
        return await ctx.step.run("load", lambda: 1)

    with pytest.raises(Unused, match=said):
        run(f, {}, **given)


def test_of_a_run_that_fails_what_was_not_used_is_told_beside_the_error():
    @function(on="a/b", retries=0)
    async def f(ctx: Context[Event]) -> int:
        raise ValueError("before the step")

    trace = run(f, {}, steps={"later": 1})
    assert trace.unused
    with pytest.raises(AssertionError, match=r"(?s)before the step.*the stub 'later' was not used"):
        _ = trace.output


def test_a_stub_for_what_is_no_step_run_is_refused():
    with pytest.raises(DeclarationError, match=r"'cooling-off' is `step\.sleep`, which cannot be stubbed"):
        run(fulfil, steps={"load": Order(1), "cooling-off": None})


def test_an_event_of_cancel_on_cancels_the_run_at_its_time():
    @function(on=OrderPlaced, cancel_on=CancelOn(OrderCancelled, match="data.id"))
    async def f(ctx: Context[OrderPlaced]) -> None:
        await ctx.step.sleep("long", days=30)

    trace = run(f, events=[after(OrderCancelled.new({"id": 2}), days=1), after(OrderCancelled.new({"id": 1}), days=2)])
    assert (trace.status, trace.duration) == ("cancelled", timedelta(days=2))
    assert trace.error is not None
    assert "order/cancelled" in trace.error.message


@pytest.mark.parametrize("kind", ["async", "plain"])
def test_a_run_that_cancels_itself_does_nothing_more(kind):
    done = []
    stop = CancelOn("a/stop", if_="async.data.id == event.data.id")

    @function(on="a/b", cancel_on=stop)
    async def f(ctx: Context[Event]) -> None:
        await ctx.step.send_event("stop", new_event("a/stop", {"id": 1}))
        await ctx.step.run("after", done.append, 1)

    @function(on="a/b", cancel_on=stop)
    def g(ctx: SyncContext[Event]) -> None:
        ctx.step.send_event("stop", new_event("a/stop", {"id": 1}))
        ctx.step.run("after", done.append, 1)

    trace = run(f if kind == "async" else g, {"id": 1})
    assert (trace.status, done, [one.outcome for one in trace.attempts]) == ("cancelled", [], ["cancelled"])


def test_a_run_has_only_the_time_that_it_was_given():
    @function(on="a/b", timeouts=Timeouts(finish=timedelta(hours=2)))
    async def f(ctx: Context[Event]) -> None:
        await ctx.step.sleep("long", hours=3)

    trace = run(f, {})
    assert (trace.status, trace.duration) == ("cancelled", timedelta(hours=2))


def test_an_invoked_function_is_stubbed_or_run():
    @function()
    async def child(ctx: Context[Event]) -> int:
        await ctx.step.sleep("rest", hours=1)
        return ctx.event.data["n"] * 2

    @function(on="a/b")
    async def parent(ctx: Context[Event]) -> int:
        return await ctx.step.invoke("twice", child, {"n": 4})

    ran = run(parent, {}, functions=[child])
    assert (ran.output, ran.duration, ran.step("twice").stubbed) == (8, timedelta(hours=1), False)
    [one] = ran.runs_of("child")
    assert (one.output, one.step("rest").status) == (8, "succeeded")
    stubbed = run(parent, {}, steps={"twice": lambda data: data["n"] + 1})
    assert (stubbed.output, stubbed.runs, stubbed.step("twice").stubbed) == (5, (), True)
    failed = run(parent, {}, steps={"twice": ValueError("no")})
    assert (failed.status, failed.step("twice").error.message) == ("failed", "no")
    with pytest.raises(DeclarationError, match=r"step 'twice' invokes 'child': say what that returns with steps="):
        run(parent, {})


def test_a_child_that_fails_fails_the_step_that_invoked_it():
    @function(retries=0)
    async def child(ctx: Context[Event]) -> int:
        raise ValueError("child's fault")

    @function(on="a/b")
    async def parent(ctx: Context[Event]) -> str:
        try:
            await ctx.step.invoke("call", child)
        except StepError as error:
            return error.reason
        return "fine"

    assert run(parent, {}, functions=[child]).output == "run run_2 of 'child': child's fault"


def test_what_is_sent_is_kept_once_and_triggers_the_other_functions():
    got = []

    @function(on="user/greeted", if_="event.data.n > 1")
    async def other(ctx: Context[Event]) -> None:
        got.append(ctx.event.data["n"])

    @function(on="a/b", retries=1)
    async def f(ctx: Context[Event]) -> list[str]:
        ids = await ctx.step.send_event("greet", [new_event("user/greeted", {"n": n}) for n in (1, 2)])
        if ctx.attempt == 1:
            raise ValueError
        return ids

    trace = run(f, {}, functions=[other])
    assert [(sent.name, sent.data, sent.step) for sent in trace.sent] == [
        ("user/greeted", {"n": 1}, "greet"),
        ("user/greeted", {"n": 2}, "greet"),
    ]
    assert trace.output == [sent.id for sent in trace.sent]
    assert (got, [one.function_id for one in trace.runs]) == ([2], ["other"])


def test_an_event_that_the_run_sends_itself_ends_its_own_wait():
    @function(on="a/b")
    async def f(ctx: Context[Event]) -> object:
        await ctx.step.send_event("send", new_event("x/y", 5))
        found = await ctx.step.wait_for_event("got", "x/y")
        return found and found.data

    trace = run(f, {})
    assert (trace.output, trace.duration) == (5, timedelta(0))


def test_the_handler_of_a_failure_runs_with_the_event_and_the_error():
    told = []

    async def failed(ctx: Context[OrderPlaced]) -> None:
        told.append((ctx.event.data.id, ctx.failure.message, ctx.failed_run_id))
        await ctx.step.run("tell", forbidden)

    @function(on=OrderPlaced, retries=0, on_failure=failed)
    async def f(ctx: Context[OrderPlaced]) -> None:
        raise ValueError("broken")

    trace = run(f, steps={"tell": Order(1)})
    assert (trace.status, told) == ("failed", [(1, "broken", trace.run_id)])
    [handler] = trace.runs_of("f.on-failure")
    assert (handler.status, handler.step("tell").stubbed) == ("succeeded", True)


def test_logs_and_progress_are_in_the_trace():
    @function(on="a/b")
    async def f(ctx: Context[Event]) -> None:
        ctx.logger.info("begun %d", 1)
        ctx.progress(1, 2, "half")
        await ctx.step.sleep("s", hours=1)
        await ctx.step.run("told", tell)
        ctx.progress(2, 2)

    def tell() -> None:
        logging.getLogger("my.library").warning("told")

    trace = run(f, {})
    said = [(one.level, one.message, one.step) for one in trace.logs]
    assert said == [("info", "begun 1", None), ("info", "begun 1", None), ("warning", "told", "told")]
    assert [(one.done, one.total, one.message) for one in trace.progress] == [(1, 2, "half"), (1, 2, "half"), (2, 2, "")]


def test_branches_side_by_side_go_on_independently():
    @function(on="a/b")
    async def f(ctx: Context[Event]) -> list[str]:
        async def branch(name: str, hours: int) -> str:
            await ctx.step.sleep(f"sleep-{name}", hours=hours)
            return await ctx.step.run(name, str.upper, name)

        return await asyncio.gather(branch("a", 3), branch("b", 1))

    @function(on="a/b")
    def g(ctx: SyncContext[Event]) -> list[str]:
        def branch(name: str, hours: int) -> str:
            ctx.step.sleep(f"sleep-{name}", hours=hours)
            return ctx.step.run(name, str.upper, name)

        return ctx.step.parallel(lambda: branch("a", 3), lambda: branch("b", 1))

    for one in (f, g):
        trace = run(one, {})
        assert (trace.output, trace.duration) == (["A", "B"], timedelta(hours=3))
        assert trace.step("b").finished_at - trace.started_at == timedelta(hours=1)


def test_the_same_seed_gives_the_same_times_and_the_randomness_outside_is_left_alone():
    @function(on="a/b", retries=4)
    async def f(ctx: Context[Event]) -> float:
        if ctx.attempt < 4:
            raise ValueError
        return random.random()

    random.seed(99)
    expected = random.random()
    random.seed(99)
    first, second, other = (Runner(seed=seed).run(f, {}) for seed in (1, 1, 2))
    assert (first.duration, first.output) == (second.duration, second.output)
    assert first.duration != other.duration
    assert random.random() == expected


def test_a_runner_goes_on_with_its_clock():
    @function(on="a/b")
    async def f(ctx: Context[Event]) -> None:
        await ctx.step.sleep_until("new-year", datetime(2031, 1, 1, tzinfo=UTC))

    runner = Runner(at=datetime(2030, 12, 31, tzinfo=UTC))
    assert runner.run(f, {}).duration == timedelta(days=1)
    assert runner.now == datetime(2031, 1, 1, tzinfo=UTC)
    runner.pass_time(timedelta(hours=1))
    assert runner.run(f, {}).duration == timedelta(0)


def test_the_event_is_the_sample_or_data_or_an_event():
    @function(on=[OrderPlaced, "other/*"], if_="event.source != 'shop'")
    async def f(ctx: Context[Event]) -> object:
        return [ctx.event.name, ctx.event.source, ctx.event.attributes.get("x")]

    assert run(f).output == ["order/placed", "test", None]
    assert run(f, new_event("other/one"), source="mine", attributes={"x": 1}).output == ["other/one", "mine", 1]
    skipped = run(f, source="shop")
    assert (skipped.status, skipped.skip_reason) == ("skipped", "if_false")
    with pytest.raises(DeclarationError, match="listens to order/placed, other/\\*: give it an event"):
        run(f, {"id": 1})
    with pytest.raises(DeclarationError, match="does not listen to 'foo/bar', but to 'order/placed', 'other/\\*'"):
        run(f, new_event("foo/bar"))


def test_data_that_does_not_fit_its_class_fails_the_run_at_once():
    trace = run(fulfil, {"id": "seven"})
    assert (trace.status, trace.error.type, len(trace.attempts)) == ("failed", "PayloadMismatch", 1)


def test_in_a_coroutine_it_is_run_async():
    async def test() -> None:
        with pytest.raises(DeclarationError, match="await run_async"):
            run(waits, {}, signals={"approval-42": 1})
        trace = await run_async(waits, {}, signals={"approval-42": 1})
        assert trace.output == 1
        assert asyncio.get_running_loop().get_task_factory() is None

    asyncio.run(test())


def test_a_loop_without_an_end_is_told():
    @function(on="a/b")
    async def f(ctx: Context[Event]) -> None:
        while True:
            await ctx.step.sleep("tick", hours=1)

    with pytest.raises(Stuck, match="has gone on 1000 times"):
        run(f, {})


def test_a_loop_that_waits_for_more_events_than_there_are_is_told():
    @function(on="a/b")
    async def f(ctx: Context[Event]) -> None:
        while True:
            await ctx.step.wait_for_event("next", "chat/said")

    with pytest.raises(Stuck, match="step 'next#2' waits for an event 'chat/said', without a timeout"):
        run(f, {}, events=[new_event("chat/said")])


def test_each_wait_for_a_name_gets_another_event():
    @function(on="a/b")
    async def f(ctx: Context[Event]) -> list[object]:
        return [(await ctx.step.wait_for_event(name, "chat/said")).data for name in ("one", "two")]

    assert run(f, {}, events=[new_event("chat/said", 1), new_event("chat/said", 2)]).output == [1, 2]


def test_printed_it_is_a_timeline():
    trace = run(fulfil, steps={"load": in_turn(TimeoutError("slow"), Order(1))}, events=[after(OrderShipped.new({"id": 2}), days=4)])
    shown = str(trace)
    for part in ("load  step.run  succeeded  (stubbed)", "try 1 failed: TimeoutError: slow", "shipped  step.wait_for_event order/shipped"):
        assert part in shown
    assert shown.count("failed: NonRetriableError: never shipped") == 1
    assert "attempt 1 failed: NonRetriableError: never shipped" in shown


def test_printed_it_says_why_a_run_was_cancelled():
    @function(on=OrderPlaced, cancel_on=CancelOn(OrderCancelled, match="data.id"))
    async def by_event(ctx: Context[OrderPlaced]) -> None:
        await ctx.step.sleep("s", days=1)

    @function(on="a/b", timeouts=Timeouts(finish=60))
    async def by_time(ctx: Context[Event]) -> None:
        await ctx.step.sleep("s", days=1)

    cancelled = run(by_event, OrderPlaced.new(Order(1)), events=[after(OrderCancelled.new({"id": 1}), hours=1)])
    assert "cancelled: Cancelled: event evt_" in str(cancelled)
    assert str(run(by_time, {})).count("TimedOut: it had not finished 60 s after its start") == 1


def test_an_error_of_a_test_has_no_other_one_above_it():
    with pytest.raises(Stuck) as stuck:
        run(waits, {})
    assert (stuck.value.__context__, stuck.value.__cause__) == (None, None)


def test_a_step_that_was_never_reached_is_named_with_those_that_were():
    trace = run(waits, {}, signals={"approval-42": 1})
    with pytest.raises(AssertionError, match="there was no step 'aproved', only 'approved'"):
        trace.step("aproved")
