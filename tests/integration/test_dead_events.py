"""Events that end dead, and no other with them: refused, too large, failing alone."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from service.dev.fake_inngest.faults import Match, Poison, ScriptedAnswer, TooLarge
from service.dev.fake_inngest.server import FakeInngest
from service.outbox.model import Row, State
from tests.support.delivery import QUICK, Delivery, delivering
from tests.support.storage import eventually


def ended_at_ms(row: Row) -> int:
    assert row.settled_at_ms is not None
    return row.settled_at_ms


POISON = Match(prefix="poison")


async def test_a_refused_event_dies_alone_after_1_and_3_s_with_the_servers_words(
    delivery: Delivery,
) -> None:
    delivery.api.faults.add(Poison(error="no such name"), times=None)
    began = time.monotonic()
    ids = await delivery.accept(*[f"d-{n}" for n in range(10)], "poison", "d-11", "d-12")
    bad = ids.pop(10)
    rows = await delivery.ends(ids)
    assert {row.attempts for row in rows} == {1}
    [row] = await delivery.ends([bad], State.DEAD)
    assert all(ended_at_ms(one) < ended_at_ms(row) for one in rows)
    assert time.monotonic() - began > 4
    assert (row.reason, row.detail, row.attempts) == ("rejected", "no such name", 3)
    notes = [str(note["note"]) for note in row.history]
    assert notes == [
        "suspected: no such name",
        "refused: no such name",
        "refused: no such name",
    ]
    assert delivery.api.ledger.times(bad) == 0
    assert {delivery.api.ledger.times(one) for one in ids} == {1}


@pytest.mark.parametrize("senders", [1, 4])
async def test_poison_among_thousands_dies_and_nothing_else(
    tmp_path: Path, inngest_api: FakeInngest, senders: int
) -> None:
    inngest_api.faults.add(Poison(error="bad"), times=None)
    names = ["poison" if n in {0, 1, 77, 1234, 1998, 1999} else f"d-{n}" for n in range(2000)]
    path = tmp_path / "outbox.db"
    async with delivering(path, inngest_api, senders=senders, policies=QUICK) as delivery:
        ids = await delivery.accept(*names)
        bad = [one for one, name in zip(ids, names, strict=True) if name == "poison"]
        healthy = [one for one in ids if one not in set(bad)]
        await inngest_api.ledger.wait_for_ids(len(healthy))
        dead = await delivery.ends(bad, State.DEAD)
        assert {(row.reason, row.detail) for row in dead} == {("rejected", "bad")}
        await delivery.ends(healthy)
        stats = await delivery.outbox.inspector.stats()
        assert (stats.dead, stats.delivered) == (6, 1994)
    assert {inngest_api.ledger.times(one) for one in healthy} == {1}


async def test_one_event_that_is_too_large_dies_of_it(delivery: Delivery) -> None:
    delivery.api.faults.add(TooLarge(max_bytes=600), times=None)
    small, large = await delivery.accept("d", "x" * 900)
    await delivery.ends([small])
    [row] = await delivery.ends([large], State.DEAD)
    assert (row.reason, row.attempts) == ("too_large", 1)


async def test_an_event_that_fails_alone_while_others_pass_is_dead_after_ten(
    quick_delivery: Delivery,
) -> None:
    quick_delivery.api.faults.add(ScriptedAnswer(500), times=None, match=POISON)
    ids = await quick_delivery.accept("d-1", "poison", "d-2")
    bad = ids.pop(1)

    async def dead() -> bool:
        ids.extend(await quick_delivery.accept("more"))
        return (await quick_delivery.row(bad)).state is State.DEAD

    await eventually(dead)
    row = await quick_delivery.row(bad)
    assert (row.reason, row.attempts) == ("undeliverable", 10)
    assert row.detail is not None
    assert row.detail.startswith("500")
    rows = await quick_delivery.ends(ids)
    assert {row.attempts for row in rows} == {1}
