"""What stands in for a step in a test: a value, an error, a callable, or one of these for each try."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from gateway import codec
from gateway.clock import Clock, Micros
from gateway.core.steps import CALLS, Kind, Step
from gateway.engine.branches import Branches
from gateway.engine.failures import failure_of
from gateway.engine.invoker import Call
from gateway.engine.ledger import RunLedger
from gateway.errors import DeclarationError
from gateway.sdk.step import Options, Work


@dataclass(frozen=True)
class InTurn:
    """A stub for each try; the last one for all further tries."""

    stubs: tuple[Any, ...]


def in_turn(*stubs: Any) -> InTurn:
    """A stub that is another one at each try of its step: `in_turn(TimeoutError(), {"id": 1})` fails once."""
    if not stubs:
        raise DeclarationError("in_turn() takes a stub for each try, at least one")
    return InTurn(stubs)


class Stubs:
    """The stubs of a test, by step id. One for `ship` also stands for `ship#2` of a loop and for `ship/0` of a `map`."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._given = given
        self._used: set[str] = set()
        self._asked: dict[str, None] = {}
        self.broken: BaseException | None = None

    def of(self, key: str, number: int) -> Callable[..., Any] | None:
        """What to call in place of try `number` of a step, if anything."""
        self._asked[key] = None
        name = self._name(key)
        if name is None:
            return None
        self._used.add(name)
        stub = self._given[name]
        return self._callable(stub.stubs[min(number, len(stub.stubs)) - 1] if isinstance(stub, InTurn) else stub)

    def stands_for(self, key: str) -> bool:
        """Whether the step has been stubbed."""
        return self._name(key) is not None

    def refuse(self, key: str, kind: Kind) -> None:
        """Raise DeclarationError where there is a stub for a step of a kind that has none."""
        if self._name(key) is not None:
            raise DeclarationError(
                f"step {key!r} is `{CALLS[kind]}`, which cannot be stubbed: stubs are for `step.run` and `step.invoke`;"
                " what is waited for is given as `events` and `signals`, and time passes by itself"
            )

    def unused(self) -> list[str]:
        """What is to be said of stubs that stood in for nothing."""
        there = ", ".join(map(repr, self._asked)) or "none"
        return [
            f"the stub {name!r} was not used: the steps that can be stubbed were {there}" for name in self._given if name not in self._used
        ]

    async def invoked(self, step: Step, data: Any, now: Micros) -> Step | None:
        """A `step.invoke` as its stub ends it, called with the data; None without a stub."""
        stub = self.of(step.key, 1)
        if stub is None:
            return None
        try:
            output = codec.dumps(await Work(stub, (data,), {})())
        except Exception as error:
            return msgspec.structs.replace(step, status="failed", finished_at=now, error=failure_of(error))
        return msgspec.structs.replace(step, status="succeeded", finished_at=now, output=output)

    def _name(self, key: str) -> str | None:
        use = re.sub(r"#\d+$", "", key)
        return next((name for name in (key, use, re.sub(r"/\d+$", "", use)) if name in self._given), None)

    def _callable(self, stub: Any) -> Callable[..., Any]:
        if isinstance(stub, BaseException) or _is_error_class(stub):

            async def fail(*_args: Any, **_kwargs: Any) -> Any:
                raise stub

            return fail
        if callable(stub):
            return self._watched(stub)

        async def give(*_args: Any, **_kwargs: Any) -> Any:
            return stub

        return give

    def _watched(self, stub: Callable[..., Any]) -> Callable[..., Any]:
        """A callable whose failed assertion, or `pytest.fail`, is one of the test, and no error to try again."""

        async def call(*args: Any, **kwargs: Any) -> Any:
            try:
                return await Work(stub, args, kwargs)()
            except asyncio.CancelledError:
                raise
            except BaseException as error:
                if isinstance(error, AssertionError) or not isinstance(error, Exception):
                    self.broken = error
                raise

        return call


def _is_error_class(stub: Any) -> bool:
    return isinstance(stub, type) and issubclass(stub, BaseException)


class StubbedLedger(RunLedger):
    """A ledger that does what a stub says where there is one."""

    def __init__(self, stubs: Stubs, call: Call, branches: Branches, retries: int, clock: Clock) -> None:
        super().__init__(call, branches, retries, clock)
        self._stubs = stubs

    async def _try(self, step: Step, work: Work, options: Options) -> Step:
        stub = self._stubs.of(step.key, step.attempts)
        return await super()._try(step, work if stub is None else replace(work, fn=stub), options)
