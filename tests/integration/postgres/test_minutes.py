"""The samples of minutes on PostgreSQL."""

from __future__ import annotations

from typing import Any

import msgspec

from service.outbox.postgres.samples import PostgresSamples
from service.outbox.sample import KEPT_MS, Sample
from tests.support.postgres_room import Room, RoomPool


def sample(at_ms: int, **changes: Any) -> Sample:
    return msgspec.structs.replace(Sample(at_ms, 1, 2, 3.0, 4.0, "healthy", "r"), **changes)


async def test_samples_of_a_time_come_in_its_order(room: Room) -> None:
    given: Any = RoomPool(room)
    samples = PostgresSamples(given)
    for at in (30, 10, 20, 40):
        await samples.add(sample(at))
    await samples.add(sample(20, waiting=99))
    assert await samples.between(10, 30) == [sample(10), sample(20), sample(30)]
    assert await samples.between(11, 29) == [sample(20)]


async def test_samples_of_more_than_seven_days_before_go(room: Room) -> None:
    given: Any = RoomPool(room)
    samples = PostgresSamples(given)
    for at in (1, 2, 3, KEPT_MS + 2):
        await samples.add(sample(at))
    assert [one.at_ms for one in await samples.between(0, 2 * KEPT_MS)] == [2, 3, KEPT_MS + 2]
