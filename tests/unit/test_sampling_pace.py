"""The pace of samples, the gauges that a sample sets, and the minutes that are kept."""

from __future__ import annotations

import asyncio
import contextlib
import math
from types import SimpleNamespace

import pytest
import structlog

from inngest_outbox.console.operations import sampler
from inngest_outbox.console.operations.sampler import History, Sampler, keep_lag
from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.observe.recorder import NullRecorder
from inngest_outbox.outbox.figures import MINUTE_MS, Sample, Stats
from inngest_outbox.outbox.model import DeliveryRecord
from tests.support.figures import Figures
from tests.support.memory_outbox import HEALTHY_DELIVERY
from tests.support.virtual_time import in_virtual_time, now

NOON_MS = 1_795_564_800_000
DELIVERY = DeliveryRecord("recovering", "", 1, 0, 0.0, 0, rate=2.0)
PAUSED = DeliveryRecord("misconfigured", "", 1, 0, 0.0, 0, paused_by="ada")
NOTHING = Stats(0, 0, 0, 0, None, None, HEALTHY_DELIVERY, 0, None)


class Clock(SimpleNamespace):
    """The module `time` by the loop's clock; `jump` is added to it."""

    jump = 0.0

    def monotonic(self) -> float:
        return now() + self.jump

    perf_counter = monotonic

    def time(self) -> float:
        return NOON_MS / 1000 + now()


class Looks:
    """An inspector whose looks cost `cost` seconds; `at` are the times of them.

    While `given` is None, and at the seconds in `away`, the store is away.
    """

    away: tuple[int, ...] = ()

    def __init__(self, clock: Clock, cost: float = 0.0, stats: Stats = NOTHING) -> None:
        self.at: list[int] = []
        self._clock, self._cost = clock, cost
        self.given: Stats | None = stats

    async def stats(self) -> Stats:
        self.at.append(round(now()))
        if self.given is None or self.at[-1] in self.away:
            raise OutboxUnavailableError
        self._clock.jump += self._cost
        return self.given


class Kept:
    """Samples that are kept but for the first, which the store does not take."""

    def __init__(self) -> None:
        self.tried: list[int] = []
        self.kept: list[Sample] = []

    async def add(self, sample: Sample) -> None:
        self.tried.append(sample.at_ms)
        if len(self.tried) == 1:
            raise OutboxUnavailableError
        self.kept.append(sample)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(sampler, "time", clock)
    monkeypatch.setattr(sampler, "wall_now_ms", lambda: NOON_MS + int(now() * 1000))
    return clock


async def watch_between(sampling: Sampler, begin: float, end: float) -> list[int]:
    """The times at which a watcher sees a sample, who comes and goes at these times."""
    seen: list[int] = []
    await asyncio.sleep(begin)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(end - begin), contextlib.aclosing(sampling.watch()) as looks:
            while await anext(looks):
                seen.append(round(now()))
    return seen


@pytest.mark.parametrize(
    ("cost", "remembers", "at", "seen"),
    [
        (0.0, True, [0, 10, 14, 16, 18, 28, 38, 40], [13, 14, 18]),
        (0.03125, True, [0, 10, 14, 16, 18, 28, 38, 40], [13, 14, 18]),
        (0.0625, True, [0, 10, 20, 30, 40], [13]),
        (0.0, False, [13, 15, 17, 19, 40], [13, 17, 19]),
    ],
)
@in_virtual_time
async def test_samples_are_taken_every_ten_seconds_and_every_two_while_someone_watches(
    clock: Clock, cost: float, at: list[int], seen: list[int], *, remembers: bool
) -> None:
    """Also after one that failed, once one of two has left, and once someone watches again."""
    looks = Looks(clock, cost)
    looks.away = (0, 15, 16)
    sampling = Sampler(looks, NullRecorder(), History(Kept()) if remembers else None)
    running = asyncio.create_task(sampling.run())
    two = (watch_between(sampling, 13, end) for end in (19.5, 14.5))
    with structlog.testing.capture_logs() as logged:
        assert await asyncio.gather(*two) == [seen, [one for one in seen if one < 14.5]]
        await asyncio.sleep(20)
        await watch_between(sampling, 0, 1)
    running.cancel()
    assert looks.at == at
    failed = {"event": "sample_failed", "log_level": "warning"}
    reason = str(OutboxUnavailableError())
    assert logged == [{**failed, "reason": reason}] * len({*looks.away} & {*at})


@in_virtual_time
async def test_each_minute_is_kept_once_it_is_over_but_for_one_that_the_store_refused(
    clock: Clock,
) -> None:
    kept, looks = Kept(), Looks(clock)
    running = asyncio.create_task(Sampler(looks, NullRecorder(), History(kept)).run())
    with structlog.testing.capture_logs() as logged:
        await asyncio.sleep(165)
        looks.given = Stats(1, 2, 3, 4, 6.0, 7.0, DELIVERY, 8, 9, sent=5)
        await asyncio.sleep(20)
    running.cancel()
    reason = {"log_level": "warning", "reason": str(OutboxUnavailableError())}
    assert logged == [{"event": "sample_not_kept", **reason}]
    assert kept.tried == [NOON_MS, NOON_MS + MINUTE_MS, NOON_MS + 2 * MINUTE_MS]
    assert kept.kept == [
        Sample(kept.tried[1], 0, 0, 0.0, 0.0, "healthy", ""),
        Sample(kept.tried[2], 8, 4, 0.25, 0.05, "recovering", ""),  # 15 came, 3 were delivered
    ]


@in_virtual_time
async def test_rates_are_those_since_the_sample_that_was_taken_before(clock: Clock) -> None:
    looks = Looks(clock, cost=0.5)
    sampling = Sampler(looks, NullRecorder())
    await sampling.sample()
    looks.given = None
    await asyncio.sleep(4.5)
    with pytest.raises(OutboxUnavailableError):
        await sampling.sample()
    looks.given = Stats(20, 0, 30, 0, None, None, HEALTHY_DELIVERY, 0, None)
    await asyncio.sleep(15)
    await sampling.sample()
    assert (sampling.latest.accepted_rate, sampling.latest.delivered_rate) == (2.5, 1.5)


@pytest.mark.parametrize(
    ("stats", "rows", "state", "others"),
    [
        (
            Stats(1, 2, 3, 4, 6.0, 7.0, DELIVERY, 8, 9, sent=5),
            (1, 2, 5, 3, 4),
            "recovering",
            (7.0, 6.0, 4.0, 8, 9),
        ),
        (
            Stats(1, 0, 0, 0, 6.0, None, HEALTHY_DELIVERY, 0, None),
            (1, 0, 0, 0, 0),
            "healthy",
            (0, 6.0, math.inf, 0, 0),
        ),
        (
            Stats(0, 0, 0, 0, None, None, PAUSED, 0, None),
            (0, 0, 0, 0, 0),
            "paused",
            (0, 0, 0, 0, 0),
        ),
    ],
)
@in_virtual_time
async def test_a_sample_sets_the_gauges(
    clock: Clock,
    stats: Stats,
    rows: tuple[int, ...],
    state: str,
    others: tuple[float, ...],
) -> None:
    figures = Figures()
    await Sampler(Looks(clock, stats=stats), figures).sample()
    states = ("pending", "delivering", "sent", "delivered", "dead")
    breakers = ("healthy", "recovering", "paused", "backing_off", "misconfigured")
    names = ("oldest_due_seconds", "oldest_pending_seconds", "drain_eta_seconds")
    sizes = ("database_bytes", "wal_bytes")
    assert sorted(figures.got) == sorted(
        [
            *(
                ("gauge", "rows", count, ("state", one))
                for one, count in zip(states, rows, strict=True)
            ),
            *(("gauge", "delivery_state", float(one == state), ("state", one)) for one in breakers),
            *(("gauge", *one) for one in zip((*names, *sizes), others, strict=True)),
            ("gauge", "sampled_timestamp_seconds", NOON_MS / 1000),
        ]
    )


@in_virtual_time
async def test_the_worst_delay_of_the_loop_is_told_for_ten_seconds(clock: Clock) -> None:
    figures = Figures()
    running = asyncio.create_task(keep_lag(figures))
    await asyncio.sleep(1.05)
    clock.jump = 0.5
    await asyncio.sleep(12)
    running.cancel()
    lags = [round(one[2], 3) for one in figures.got]
    assert {one[:2] for one in figures.got} == {("gauge", "event_loop_lag_seconds")}
    assert lags == [0.0] * 10 + [0.5] * 100 + [0.0] * 20
