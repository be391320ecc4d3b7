"""An event that fails by itself while no other is sent is told once, and so is its end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from service.inngest.send_result import Signal
from service.outbox.model import Batch, Entry
from service.relay.empty_request import EmptyRequest, LoneFailure
from service.relay.report import Report


class Asked:
    """An empty request that Inngest answers well when the test says so."""

    on_nothing_due: Callable[[], None]

    def __init__(self) -> None:
        self.waiting: list[Callable[[], Any]] = []

    def ask(self, well: Callable[[], Any]) -> None:
        self.waiting.append(well)

    def answer(self) -> None:
        for well in self.waiting:
            well()
        self.waiting.clear()


class Told:
    def __init__(self) -> None:
        self.ids: list[str | None] = []

    def lone_event_fails(self, event_id: str | None) -> None:
        self.ids.append(event_id)


class World:
    def __init__(self) -> None:
        self.asked, self.told = Asked(), Told()
        self.watch = LoneFailure(cast("EmptyRequest", self.asked), cast("Report", self.told))

    def fail(self, seq: int, times: int = 1) -> None:
        for _ in range(times):
            self.watch.answered(sent(seq), Signal.TROUBLE)


def sent(*seqs: int) -> Batch:
    return Batch("c", tuple(Entry(seq, f"e-{seq}", 0, "u-1") for seq in seqs), b"{}")


def test_after_five_failures_an_empty_request_asks_and_its_success_is_told_once() -> None:
    world = World()
    world.fail(1, times=4)
    assert not world.asked.waiting
    world.fail(1)
    assert (len(world.asked.waiting), world.told.ids) == (1, [])
    world.asked.answer()
    assert world.told.ids == ["e-1"]
    world.fail(1, times=5)
    world.asked.answer()
    assert world.told.ids == ["e-1"]


def test_what_ends_it_is_told_once_and_the_next_time_begins_with_nothing() -> None:
    world = World()
    world.fail(1, times=5)
    world.asked.answer()
    world.watch.answered(sent(1), Signal.PASSED)
    world.watch.answered(sent(1), Signal.PASSED)
    assert world.told.ids == ["e-1", None]
    world.fail(1, times=4)
    assert not world.asked.waiting
    world.fail(1)
    world.asked.answer()
    assert world.told.ids == ["e-1", None, "e-1"]


def test_another_event_or_a_batch_ends_it_too() -> None:
    for other in (sent(2), sent(1, 2)):
        world = World()
        world.fail(1, times=4)
        world.watch.answered(other, Signal.TROUBLE)
        world.fail(1)
        assert not world.asked.waiting


def test_batches_that_fail_again_and_again_are_no_lone_event() -> None:
    world = World()
    for _ in range(10):
        world.watch.answered(sent(1, 2), Signal.TROUBLE)
    assert not world.asked.waiting


def test_an_answer_that_comes_after_its_end_tells_nothing() -> None:
    world = World()
    world.fail(1, times=5)
    world.fail(2)
    world.asked.answer()
    assert world.told.ids == []


def test_what_passes_alone_is_no_failure() -> None:
    world = World()
    for _ in range(9):
        world.watch.answered(sent(1), Signal.PASSED)
    world.fail(1, times=4)
    assert not world.asked.waiting


def test_where_nothing_is_due_no_event_fails() -> None:
    world = World()
    world.asked.on_nothing_due()
    assert world.told.ids == []
    world.fail(1, times=5)
    world.asked.answer()
    world.asked.on_nothing_due()
    assert world.told.ids == ["e-1", None]
