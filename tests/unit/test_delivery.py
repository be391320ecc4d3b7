"""The relay over a model of its neighbours, in virtual time: hours of faults in milliseconds."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Iterator

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from service.observe.recorder import NullRecorder
from service.outbox.outbox import LaneRecord
from service.relay.lane import LaneState
from service.relay.relay import Relay
from tests.unit.delivery_model import (
    FAILING,
    HANGING,
    HEALTHY,
    HUGE,
    MODES,
    REFUSED,
    ModelInngest,
    ModelQueue,
    ModelRow,
)
from tests.virtual_time import run_in_virtual_time

REASONS = {
    REFUSED: "rejected",
    FAILING: "undeliverable",
    HANGING: "undeliverable",
    HUGE: "too_large",
}


class World:
    def __init__(self, *, senders: int = 4, max_events: int = 50, max_bytes: int = 1 << 30) -> None:
        self.queue = ModelQueue()
        self.inngest = ModelInngest(max_bytes=max_bytes)
        self.beats = 0
        self.relay = Relay(
            self.queue,
            self.inngest,
            NullRecorder(),
            max_events=max_events,
            max_bytes=1 << 20,
            senders=senders,
            send_timeout_seconds=10,
            drain_seconds=30,
            beat=self._beat,
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self.relay.run()), asyncio.create_task(self.relay.keep_lane())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            done = await asyncio.gather(*tasks, return_exceptions=True)
            await self.relay.stop()
            assert all(isinstance(one, asyncio.CancelledError) for one in done), done

    def _beat(self) -> None:
        self.beats += 1

    def add(self, *kinds: str) -> list[ModelRow]:
        return [self.queue.add(kind) for kind in kinds]

    async def until(self, rows: list[ModelRow], seconds: float) -> float:
        """Wait until every row is settled; how long it took."""
        began = asyncio.get_running_loop().time()
        while left := [row for row in rows if row.settled_at is None]:
            waited = asyncio.get_running_loop().time() - began
            assert waited <= seconds, (
                f"not settled after {waited:g} s: {left[:5]}, {self.relay.lane}"
            )
            await asyncio.sleep(0.1)
        return asyncio.get_running_loop().time() - began


def check(rows: list[ModelRow]) -> None:
    """Each row ended where its kind belongs."""
    for row in rows:
        if row.kind == HEALTHY:
            assert row.state == "delivered", row
        else:
            assert (row.state, row.reason) == ("dead", REASONS[row.kind]), row


@pytest.fixture(autouse=True, scope="module")
def _quiet() -> Iterator[None]:
    quiet = structlog.make_filtering_bound_logger(logging.CRITICAL)
    structlog.configure(wrapper_class=quiet, cache_logger_on_first_use=False)
    yield
    structlog.reset_defaults()


def test_a_relay_that_waits_for_rows_or_for_inngest_beats_all_the_time() -> None:
    async def main() -> None:
        world = World()
        async with world.running():
            await asyncio.sleep(10)
            assert world.beats >= 10
            world.inngest.mode = "away"
            world.add(HEALTHY)
            await asyncio.sleep(5)
            world.beats = 0
            await asyncio.sleep(10)
        assert world.beats >= 10

    run_in_virtual_time(main())


def test_a_store_that_fails_is_asked_again_and_a_stop_meanwhile_ends_the_relay() -> None:
    async def main() -> None:
        world = World()
        world.queue.failing = True
        running = asyncio.create_task(world.relay.run())
        rows = world.add(HEALTHY)
        await asyncio.sleep(0.3)
        world.queue.failing = False
        await world.until(rows, 1)
        world.queue.failing = True
        world.add(HEALTHY)
        await asyncio.sleep(0.1)
        await world.relay.stop()
        await asyncio.wait_for(running, 1)

    run_in_virtual_time(main())


def test_a_batch_is_delivered_at_the_first_attempt() -> None:
    async def main() -> None:
        world = World()
        rows = world.add(*[HEALTHY] * 200)
        async with world.running():
            await world.until(rows, 1)
        assert {(row.state, row.attempts, row.sends) for row in rows} == {("delivered", 1, 1)}

    run_in_virtual_time(main())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("senders", [1, 4])
def test_an_outage_ages_nobody_and_all_is_delivered_within_15_s_of_its_end(
    mode: str, senders: int
) -> None:
    async def main() -> None:
        world = World(senders=senders)
        before = world.add(*[HEALTHY] * 20)
        async with world.running():
            await world.until(before, 1)
            world.inngest.mode = mode
            rows = world.add(*[HEALTHY] * 300)
            for _ in range(60):
                await asyncio.sleep(1)
                rows += world.add(HEALTHY)
            world.inngest.mode = None
            await world.until(rows, 15)
        assert {row.state for row in rows} == {"delivered"}
        assert {row.attempts for row in rows} <= {1, 2}
        assert world.relay.lane.state is LaneState.OPEN

    random.seed(mode)
    run_in_virtual_time(main())


@pytest.mark.parametrize("mode", ["away", "failing", "refusing"])
def test_a_closed_lane_asks_seldom_and_with_one_event(mode: str) -> None:
    async def main() -> None:
        world = World()
        world.inngest.mode = mode
        world.add(*[HEALTHY] * 500)
        async with world.running():
            await asyncio.sleep(20)
            asked = len(world.inngest.sent_at)
            await asyncio.sleep(600)
        later = world.inngest.sent_at[asked:]
        assert {events for _, events in later} == {1}
        assert 600 / 5 - 2 <= len(later) <= 600

    random.seed(mode)
    run_in_virtual_time(main())


def test_when_everything_is_refused_for_a_minute_nobody_dies() -> None:
    async def main() -> None:
        world = World()
        world.inngest.mode = "refusing"
        rows = world.add(*[HEALTHY] * 300)
        async with world.running():
            await asyncio.sleep(60)
            world.inngest.mode = None
            await world.until(rows, 15)
        check(rows)

    random.seed(1)
    run_in_virtual_time(main())


@pytest.mark.parametrize("kind", [REFUSED, FAILING, HUGE])
@pytest.mark.parametrize("senders", [1, 4])
@pytest.mark.parametrize("bad", [1, 20])
def test_bad_events_among_thousands_die_alone(kind: str, senders: int, bad: int) -> None:
    async def main() -> None:
        world = World(senders=senders, max_events=500)
        kinds = [HEALTHY] * (1500 - bad) + [kind] * bad
        random.shuffle(kinds)
        rows = world.add(*kinds)
        async with world.running():
            healthy = [row for row in rows if row.kind == HEALTHY]
            await world.until(healthy, 60)
            while any(row.settled_at is None for row in rows):
                await world.until(world.add(HEALTHY), 10)
                assert asyncio.get_running_loop().time() < 600, world.relay.lane
        check(rows)
        for row in rows:
            if row.kind != HEALTHY:
                assert world.inngest.sent_alone[row.seq] <= 25
            else:
                assert row.attempts <= 2
        assert max(world.inngest.times.values()) <= 1 or kind == FAILING

    random.seed(f"{kind}{senders}{bad}")
    run_in_virtual_time(main())


@pytest.mark.parametrize("senders", [1, 4])
@pytest.mark.parametrize("kind", [REFUSED, FAILING, HANGING])
def test_a_bad_event_that_is_the_newest_of_a_backlog_holds_back_nobody(
    kind: str, senders: int
) -> None:
    async def main() -> None:
        world = World(senders=senders, max_events=500)
        rows = world.add(*[HEALTHY] * 2000, kind)
        async with world.running():
            await world.until(rows[:-1], 120)

    random.seed(1)
    run_in_virtual_time(main())


@pytest.mark.parametrize("senders", [1, 4])
def test_a_long_run_of_refused_events_holds_back_nobody(senders: int) -> None:
    async def main() -> None:
        world = World(senders=senders, max_events=500)
        rows = world.add(*[HEALTHY] * 100, *[REFUSED] * 300, *[HEALTHY] * 100)
        async with world.running():
            await world.until([row for row in rows if row.kind == HEALTHY], 10)
            rows += world.add(HEALTHY)
            await world.until(rows[-1:], 1)
            await world.until(rows, 60)
        check(rows)

    random.seed(1)
    run_in_virtual_time(main())


@pytest.mark.parametrize("senders", [1, 4])
@pytest.mark.parametrize("kind", [REFUSED, FAILING, HANGING])
def test_bad_events_do_not_delay_a_trickle_of_good_ones(kind: str, senders: int) -> None:
    async def main() -> None:
        world = World(senders=senders)
        bad = world.add(*[kind] * 5)
        waits = []
        async with world.running():
            for _ in range(300):
                [row] = world.add(HEALTHY)
                waits.append(await world.until([row], 45))
                await asyncio.sleep(2)
            assert all(row.state == "dead" for row in bad), (bad, world.relay.lane)
        waits.sort()
        assert waits[len(waits) // 2] <= 0.2
        assert waits[int(len(waits) * 0.95)] <= 6

    random.seed(1)
    run_in_virtual_time(main())


def test_a_bad_event_alone_in_the_outbox_holds_back_no_newcomer_for_long() -> None:
    async def main() -> None:
        world = World()
        world.add(FAILING)
        async with world.running():
            await asyncio.sleep(120)
            await world.until(world.add(HEALTHY), 12)

    random.seed(1)
    run_in_virtual_time(main())


def test_a_suspect_is_asked_again_when_nothing_else_comes() -> None:
    async def main() -> None:
        world = World()
        rows = world.add(REFUSED)
        async with world.running():
            took = await world.until(rows, 10)
        assert 4 <= took <= 6
        assert world.inngest.sent_alone[rows[0].seq] == 3
        assert rows[0].attempts == 3

    run_in_virtual_time(main())


def test_suspects_of_a_long_outage_are_delivered_soon_after_it() -> None:
    async def main() -> None:
        world = World()
        world.inngest.mode = "failing"
        rows = world.add(*[HEALTHY] * 1000)
        async with world.running():
            for _ in range(600):
                await asyncio.sleep(1)
                rows += world.add(HEALTHY)
            world.inngest.mode = None
            await world.until(rows, 15)
        check(rows)

    random.seed(1)
    run_in_virtual_time(main())


def test_batches_shrink_until_they_are_not_too_large_and_no_event_dies() -> None:
    async def main() -> None:
        world = World(max_events=500, max_bytes=200)
        rows = world.add(*[HEALTHY] * 1000)
        async with world.running():
            await world.until(rows, 60)
        check(rows)

    run_in_virtual_time(main())


def test_retry_after_is_honoured_also_from_a_late_answer() -> None:
    async def main() -> None:
        world = World(max_events=1)
        world.inngest.mode = "busy"
        rows = world.add(*[HEALTHY] * 4)
        async with world.running():
            await asyncio.sleep(0.5)
            first = len(world.inngest.sent_at)
            await asyncio.sleep(2.2)
            assert len(world.inngest.sent_at) == first
            world.inngest.mode = None
            await world.until(rows, 3)

    run_in_virtual_time(main())


def test_a_wrong_key_is_tried_every_five_seconds() -> None:
    async def main() -> None:
        world = World()
        world.inngest.mode = "no_key"
        rows = world.add(*[HEALTHY] * 10)
        async with world.running():
            await asyncio.sleep(60)
            assert world.relay.lane.state is LaneState.MISCONFIGURED
            assert 11 <= len(world.inngest.sent_at) <= 13
            world.inngest.mode = None
            await world.until(rows, 6)
        assert {row.attempts for row in rows} == {1}

    run_in_virtual_time(main())


def test_a_paused_lane_sends_nothing_until_it_is_resumed() -> None:
    async def main() -> None:
        world = World()
        paused = LaneRecord("open", "", 50, 0, 0.0, 0, paused_by="ada")
        world.queue.record = paused
        rows = world.add(*[HEALTHY] * 10)
        async with world.running():
            await asyncio.sleep(60)
            assert not world.inngest.sent_at
            world.queue.record = LaneRecord("open", "", 50, 0, 0.0, 0)
            await world.until(rows, 3)

    run_in_virtual_time(main())


def test_a_closed_lane_is_taken_up_after_a_restart_whatever_the_clock_did() -> None:
    async def main() -> None:
        world = World()
        world.queue.record = LaneRecord("closed", "500", 1, 4, 3600.0, 0)
        rows = world.add(*[HEALTHY] * 10)
        async with world.running():
            await asyncio.sleep(1)
            assert not world.inngest.sent_at
            await world.until(rows, 310)
            assert world.inngest.sent_at[0][1] == 1

    run_in_virtual_time(main())


SCRIPTS = st.lists(
    st.tuples(st.sampled_from((*MODES, None)), st.floats(0.01, 30)), min_size=1, max_size=8
)


@settings(max_examples=15, deadline=None)
@given(
    script=SCRIPTS,
    kinds=st.lists(
        st.sampled_from([HEALTHY] * 20 + [REFUSED, FAILING, HUGE]), min_size=1, max_size=80
    ),
    senders=st.sampled_from([1, 2, 4]),
    seed=st.integers(0, 1 << 30),
)
def test_any_sequence_of_faults_ends_with_each_event_where_it_belongs(
    script: list[tuple[str | None, float]], kinds: list[str], senders: int, seed: int
) -> None:
    async def main() -> None:
        world = World(senders=senders)
        rows = world.add(*kinds)
        async with world.running():
            for mode, seconds in script:
                world.inngest.mode = mode
                await asyncio.sleep(seconds)
                rows += world.add(HEALTHY)
            world.inngest.mode = None
            await world.until([row for row in rows if row.kind == HEALTHY], 120)
            while any(row.settled_at is None for row in rows):
                await world.until(world.add(HEALTHY), 15)
                assert asyncio.get_running_loop().time() < 1200, world.relay.lane
        check(rows)
        assert world.inngest.most_under_way <= 2 * senders
        assert not world.queue.stale

    random.seed(seed)
    run_in_virtual_time(main())
