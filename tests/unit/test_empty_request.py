"""A request without an event: when it is sent, and which answer proves what."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from typing import Any, cast

import pytest

from service.inngest.send_result import SendResult
from service.relay.breaker import Breaker
from service.relay.breaker_sync import BreakerSync
from service.relay.empty_request import EmptyRequest
from service.relay.sends import BreakerState
from tests.support.breakers import fresh, passed
from tests.support.virtual_time import run_in_virtual_time

WAITING = fresh().with_wait(BreakerState.BACKING_OFF, "503", 9.0)
RECOVERING = replace(passed(WAITING), reason="503")


class World:
    """A breaker, and Inngest, which answers after a second; `fault` is raised instead."""

    def __init__(self, breaker: Breaker) -> None:
        self.breaker = breaker
        self.answer = SendResult(200, ("",))
        self.fault: Exception | None = None
        self.sent: list[bytes] = []
        self.cancelled = 0
        self.empty_request = EmptyRequest(self, cast("BreakerSync", self))

    async def send(self, payloads: bytes, headers: Mapping[str, str] = {}) -> SendResult:
        assert not headers
        self.sent.append(payloads)
        try:
            await asyncio.sleep(1)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.fault is not None:
            raise self.fault
        return self.answer

    def move(self, breaker: Breaker) -> None:
        self.breaker = breaker


def in_a_world(test: Callable[[World], Coroutine[Any, Any, None]], breaker: Breaker) -> None:
    async def main() -> None:
        await test(World(breaker))

    run_in_virtual_time(main())


def test_recovery_ends_without_a_request_when_nothing_is_due() -> None:
    async def test(world: World) -> None:
        world.empty_request.nothing_due()
        assert world.breaker == RECOVERING.with_idle()
        await asyncio.sleep(2)
        assert world.sent == []

    in_a_world(test, RECOVERING)


def test_a_healthy_delivery_with_nothing_due_asks_nothing() -> None:
    async def test(world: World) -> None:
        world.empty_request.nothing_due()
        await asyncio.sleep(2)
        assert (world.sent, world.breaker) == ([], fresh())

    in_a_world(test, fresh())


def test_that_nothing_is_due_is_told_at_once() -> None:
    async def test(world: World) -> None:
        told: list[Breaker] = []
        world.empty_request.on_nothing_due = lambda: told.append(world.breaker)
        world.empty_request.nothing_due()
        assert told == [RECOVERING]

    in_a_world(test, RECOVERING)


@pytest.mark.parametrize(
    ("answer", "over"),
    [
        (SendResult(200, ("",)), True),
        (SendResult(200, ()), True),
        (SendResult(400, ("",)), True),
        (SendResult(200, None), False),
        (SendResult(400, None), False),
        (SendResult(500, ()), False),
        (SendResult(None, words="timeout"), False),
    ],
)
def test_trouble_ends_when_inngest_answers_an_empty_request(
    answer: SendResult, *, over: bool
) -> None:
    async def test(world: World) -> None:
        world.answer = answer
        world.empty_request.nothing_due()
        await asyncio.sleep(0.5)
        assert (world.sent, world.breaker) == ([b""], WAITING)
        await asyncio.sleep(1)
        assert world.breaker == (WAITING.with_idle() if over else WAITING)

    in_a_world(test, WAITING)


def test_an_answer_says_nothing_about_what_happened_since_it_was_asked_for() -> None:
    async def test(world: World) -> None:
        world.empty_request.nothing_due()
        await asyncio.sleep(0.5)
        world.breaker = again = WAITING.with_wait(BreakerState.BACKING_OFF, "500", 9.0)
        await asyncio.sleep(1)
        assert world.breaker == again

    in_a_world(test, WAITING)


def test_an_event_was_too_large_when_an_empty_request_passes() -> None:
    async def test(world: World) -> None:
        world.empty_request.too_large(7)
        await asyncio.sleep(1.5)
        assert world.breaker.ledger.confirmed_bad == {7}

    in_a_world(test, passed(fresh()))


@pytest.mark.parametrize("fault", [None, RuntimeError("ours")])
def test_one_is_in_flight_at_a_time(fault: Exception | None) -> None:
    async def test(world: World) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        world.fault = fault
        told: list[str] = []
        world.empty_request.ask(lambda: told.append("first"))
        world.empty_request.ask(lambda: told.append("second"))
        await asyncio.sleep(1.5)
        world.fault = None
        world.empty_request.ask(lambda: told.append("third"))
        await asyncio.sleep(1.5)
        assert told == (["third"] if fault else ["first", "third"])
        assert len(world.sent) == 2

    in_a_world(test, fresh())


def test_a_stop_cancels_the_one_in_flight() -> None:
    async def test(world: World) -> None:
        await world.empty_request.stop()
        world.empty_request.nothing_due()
        await asyncio.sleep(0.5)
        await world.empty_request.stop()
        assert (world.cancelled, world.breaker) == (1, WAITING)

    in_a_world(test, WAITING)
