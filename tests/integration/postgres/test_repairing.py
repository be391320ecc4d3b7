"""What replay and discard change on PostgreSQL: which rows, and what they leave."""

from __future__ import annotations

import json
from typing import Any

import pytest

from service.outbox.audit import Act
from service.outbox.model import Named, State
from tests.support.postgres_room import START_MS, after
from tests.support.repair_room import RepairRoom

ALL = Named(tuple(f"e-{seq}" for seq in range(1, 11)))


def of(**chosen: Any) -> Named:
    """Those of all rows that are so."""
    return Named(ALL.ids, **chosen)


def audit(here: RepairRoom) -> dict[str, Any]:
    [row] = here.room.table("audit")
    return row


def change(here: RepairRoom) -> dict[str, Any]:
    """The one change of the counts, without what did not change."""
    [row] = here.room.table("changes")
    return {
        name: value for name, value in row.items() if value and name not in {"no", "changed_at"}
    }


def settled(here: RepairRoom) -> None:
    """Rows 1 and 4 are dead, 2 is delivered, 3 waits; one after the other."""
    here.done(1, dead=True, reason="no")
    here.done(2, reason="no")
    here.pending(3)
    here.done(4, dead=True, reason="other")


async def test_a_replayed_row_is_due_without_attempts_and_keeps_its_past(here: RepairRoom) -> None:
    settled(here)
    here.room.at(9)
    act = Act("act", "all of them")
    assert await here.repairs.replay(ALL, actor="ada", act=act) == ["e-4", "e-1"]
    assert set(here.room.rows("done")) == {2}
    ready = here.room.rows("ready")
    for seq in (1, 4):
        assert ready[seq] == {
            "due_at": 9.0,
            "held": False,
            "first_sent_at_ms": 5,
            "attempts": 0,
            "sends": 4,
            "payload_bytes": seq,
            "isolated": False,
        }
    notes = {(row["seq"], row["note"]) for row in here.room.table("notes") if row["at_ms"]}
    assert notes == {(1, "replayed by ada"), (4, "replayed by ada")}
    assert change(here) == {"owners": ["a"], "pending": [2], "dead": -2}
    said = audit(here)
    assert [said[name] for name in ("act", "actor", "action", "detail", "at_ms")] == [
        *("act", "ada", "replay", "all of them"),
        START_MS + 9000,
    ]
    assert json.loads(said["ids"]) == ["e-4", "e-1"]
    assert here.beside.due == 1
    assert here.pool.asked[-1][2] == {"repeat_with": None}


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (ALL, [4, 1]),
        (of(state=State.DEAD), [4, 1]),
        (of(state=State.DELIVERED), [2]),
        (of(state=State.PENDING), []),
        (of(owner="a"), [4, 1]),
        (of(owner="b"), []),
        (Named(("e-1", "e-2", "e-3")), [1]),
        (Named(()), []),
    ],
)
async def test_replay_takes_the_dead_rows_that_are_named_or_the_delivered_ones(
    here: RepairRoom, wanted: Named, found: list[int]
) -> None:
    settled(here)
    ids = [f"e-{seq}" for seq in found]
    assert await here.repairs.replay(wanted, actor="ada") == ids
    assert json.loads(audit(here)["ids"]) == ids
    assert set(here.room.rows("ready")) == {3, *found}
    delivered = found.count(2)
    figures = {"delivered": -delivered, "dead": delivered - len(found)}
    counted = {"owners": ["a"], "pending": [len(found)]} if found else {}
    found_change = change(here) if found else {}
    assert found_change == {**counted, **{name: by for name, by in figures.items() if by}}
    assert len(here.room.table("changes")) == (len(found) > 0)


async def test_a_replayed_row_is_due_behind_the_mark(here: RepairRoom) -> None:
    here.done(1, dead=True)
    here.room.mark(due_from=after(100))
    await here.repairs.replay(ALL, actor="ada")
    assert here.room.rows("ready")[1]["due_at"] == 100.0


def everywhere(here: RepairRoom) -> None:
    """Row 6 is under a claim; 2 and 7 may have been sent."""
    here.pending(1)
    here.pending(2, sends=1)
    here.sent(3)
    here.done(4)
    here.done(5, dead=True, reason="no")
    here.pending(6, isolated=True)
    here.room.take(1)
    here.pending(7, "b", first_sent_at_ms=5)
    here.sent(8)
    here.done(9, reason="late")
    here.done(10, "b", dead=True, reason="late")


CLAIMED = 6


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (ALL, [10, 9, 8, 7, 5, 4, 3, 2, 1]),
        (of(state=State.PENDING), [7, 2, 1]),
        (of(state=State.SENT), [8, 3]),
        (of(state=State.DELIVERED), [9, 4]),
        (of(state=State.DEAD), [10, 5]),
        (of(state=State.DELIVERING), []),
        (of(never_sent=True), [1]),
        (of(never_sent=True, state=State.SENT), []),
        (of(never_sent=True, state=State.DEAD), []),
        (of(never_sent=True, owner="b"), []),
        (of(owner="b"), [10, 7]),
        (Named(("e-3", "e-6")), [3]),
        (Named(()), []),
    ],
)
async def test_discard_removes_the_named_rows_that_are_not_under_a_claim(
    here: RepairRoom, wanted: Named, found: list[int]
) -> None:
    everywhere(here)
    before = here.room.places()
    assert before[CLAIMED] == "claims"
    assert await here.repairs.discard(wanted, actor="ada") == [f"e-{seq}" for seq in found]
    left = {seq: place for seq, place in before.items() if seq not in found}
    assert here.room.places() == left
    assert here.noted() == sorted(left)
    said = audit(here)
    assert (said["action"], json.loads(said["ids"])) == ("discard", [f"e-{seq}" for seq in found])
    assert len(here.room.table("changes")) == (len(found) > 0)
    assert here.pool.asked[-1][2] == {"repeat_with": None}


async def test_discarded_rows_leave_the_counts(here: RepairRoom) -> None:
    everywhere(here)
    await here.repairs.discard(ALL, actor="ada")
    changed = change(here)
    names = ("owners", "pending", "stored", "stored_bytes")
    assert sorted(zip(*(changed[name] for name in names), strict=True)) == [
        ("a", -2, -7, -(1 + 2 + 3 + 4 + 5 + 8 + 9)),
        ("b", -1, -2, -17),
    ]
    assert (changed["delivered"], changed["dead"], changed["sent"]) == (-2, -2, -2)


async def test_sent_rows_are_searched_from_their_mark(here: RepairRoom) -> None:
    here.sent(1, at=9.999)
    here.sent(2, at=10)
    here.room.mark(sent_from=START_MS + 10_000)
    assert await here.repairs.discard(ALL, actor="ada") == ["e-2"]


async def test_an_act_names_how_its_rows_were_chosen(here: RepairRoom) -> None:
    await here.repairs.discard(Named(("e-1",), State.DEAD), actor="ada")
    said = audit(here)
    assert said["detail"] == "1 given id, state=dead"
    assert (said["actor"], len(said["act"])) == ("ada", 32)


async def test_a_pause_is_the_deliverys(here: RepairRoom) -> None:
    given: dict[str, Any] = {"paused": True, "actor": "ada", "ask_now": True, "reason": "r"}
    assert await here.repairs.set_paused(**given) == "record"
    await here.repairs.set_paused(paused=False, actor="ada")
    unsaid = {"ask_now": False, "reason": ""}
    assert here.beside.paused == [given, {"paused": False, "actor": "ada", **unsaid}]
