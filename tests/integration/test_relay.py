"""The relay between a real SQLite outbox and the fake Inngest: stops, trouble, and dead events."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from pathlib import Path

import pytest

from inngest_outbox.dev.fake_inngest.faults import (
    Action,
    Cut,
    Drip,
    Hang,
    Match,
    Partial,
    Poison,
    Reset,
    ScriptedAnswer,
)
from inngest_outbox.dev.fake_inngest.server import FakeInngest
from inngest_outbox.outbox.model import Row, State
from inngest_outbox.relay.sends import BreakerState
from tests.support.delivery import QUICK, Delivery, Policies, delivering


@pytest.mark.parametrize("fault", [Partial(3), Partial(3, blank=True)], ids=["fewer", "empty"])
async def test_without_an_id_an_event_stays_and_is_sent_again_at_once(
    delivery: Delivery, fault: Action
) -> None:
    delivery.api.faults.add(fault)
    ids = await delivery.accept(*[f"d-{n}" for n in range(10)])
    rows = await delivery.ends(ids)
    assert {row.attempts for row in rows} == {1}
    assert sorted(row.sends for row in rows) == [1] * 7 + [2] * 3
    assert delivery.api.ledger.stats.arrivals == 10


async def test_a_send_that_is_cut_off_by_the_stop_is_sent_again_after_the_start(
    tmp_path: Path, inngest_api: FakeInngest
) -> None:
    inngest_api.faults.add(Hang(store=True))
    cut = Policies(drain_seconds=0)
    async with delivering(tmp_path / "outbox.db", inngest_api, policies=cut) as delivery:
        ids = await delivery.accept("d")
        await inngest_api.ledger.wait_for_requests(1)
    async with delivering(tmp_path / "outbox.db", inngest_api) as delivery:
        [row] = await delivery.ends(ids)
        assert (row.attempts, row.sends) == (1, 2)
    assert inngest_api.ledger.times(ids[0]) == 2
    assert inngest_api.runs.count == 1


@pytest.mark.parametrize(
    "fault",
    [
        ScriptedAnswer(500),
        ScriptedAnswer(200, body="<html>captive portal</html>", content_type="text/html"),
        Reset("unread"),
        Reset("stored"),
        Hang(store=True),
        Drip(seconds=0.2),
        Cut(answer_bytes=10),
    ],
    ids=str,
)
async def test_trouble_closes_the_delivery_ages_nobody_and_ends_by_itself(
    hasty_delivery: Delivery, fault: Action
) -> None:
    hasty_delivery.api.faults.add(fault, times=None)
    ids = await hasty_delivery.accept(*[f"d-{n}" for n in range(20)])
    await hasty_delivery.delivery_is(BreakerState.BACKING_OFF)
    await hasty_delivery.api.ledger.wait_for_requests(3)
    ids += await hasty_delivery.accept("later")
    assert {(await hasty_delivery.row(one)).attempts for one in ids} == {0}
    hasty_delivery.api.faults.clear()
    rows = await hasty_delivery.ends(ids)
    assert {row.attempts for row in rows} == {1}
    await hasty_delivery.delivery_is(BreakerState.HEALTHY)


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
    notes = [note.note for note in row.history]
    assert notes == [
        "suspected: no such name",
        "refused: no such name",
        "refused: no such name",
    ]
    assert delivery.api.ledger.times(bad) == 0
    assert {delivery.api.ledger.times(one) for one in ids} == {1}


async def test_events_whose_stored_bytes_are_damaged_die_so_and_hold_back_nobody(
    tmp_path: Path, inngest_api: FakeInngest
) -> None:
    cut = "substr(payload, 1, 60)"
    damages = {1: cut, 3: "x'00ff'", 5: "zeroblob(300)", 6: "x'7b5d'", 7: "x''", 8: "x'5d'"}
    inngest_api.faults.add(ScriptedAnswer(500), times=None)
    async with delivering(tmp_path / "outbox.db", inngest_api) as delivery:
        ids = await delivery.accept(*[f"d-{n}" for n in range(9)])
    with contextlib.closing(sqlite3.connect(tmp_path / "outbox.db", isolation_level=None)) as file:
        for at, damage in damages.items():
            changed = f"UPDATE outbox SET payload = CAST({damage} AS BLOB) WHERE event_id = ?"
            file.execute(changed, (ids[at],))
    inngest_api.faults.clear()
    async with delivering(tmp_path / "outbox.db", inngest_api, policies=QUICK) as delivery:
        await delivery.ends([one for at, one in enumerate(ids) if at not in damages])
        rows = await delivery.ends([ids[at] for at in damages], State.DEAD)
        assert [(row.reason, row.attempts) for row in rows] == [("payload_damaged", 3)] * 6
        await delivery.delivery_is(BreakerState.HEALTHY)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (ScriptedAnswer(403, body="<html>", content_type="text/html"), "undeliverable"),
        (ScriptedAnswer(429, retry_after=1), "undeliverable"),
        (ScriptedAnswer(500), "undeliverable"),
        (ScriptedAnswer(413), "too_large"),
        (ScriptedAnswer(200, body="<html>no</html>", content_type="text/html"), "undeliverable"),
        (Reset("read"), "undeliverable"),
    ],
    ids=str,
)
async def test_one_event_that_is_refused_dies_and_the_others_are_delivered(
    quick_delivery: Delivery, fault: Action, reason: str
) -> None:
    delivery = quick_delivery
    delivery.api.faults.add(fault, times=None, match=POISON)
    ids = await delivery.accept(*[f"d-{n}" for n in range(30)], "poison")
    bad = ids.pop()
    while (await delivery.row(bad)).state is not State.DEAD:
        ids += await delivery.accept("more", "and more")
        await delivery.ends(ids[-2:])
        assert len(ids) < 2000, delivery.relay.breaker
    row = await delivery.row(bad)
    assert (row.reason, row.attempts) == (reason, 10)
    rows = await delivery.ends(ids)
    assert {row.attempts for row in rows} == {1}
    await delivery.delivery_is(BreakerState.HEALTHY)
    assert {delivery.api.ledger.times(one) for one in ids} == {1}
