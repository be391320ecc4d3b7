"""The audit names every event that a command changed, and how they were chosen."""

from __future__ import annotations

import asyncio

from service.console.operations.actions import SessionSignOuts
from service.console.operations.bulk import change_rows
from service.identity.session_revision import SessionRevisions
from service.outbox.audit import act_of
from service.outbox.model import Dead, Filter, Named, Settlement, State
from tests.support.rows import bury
from tests.support.storage import Outbox, ask, claim, event


async def test_all_of_many_discarded_events_are_found_by_their_ids(outbox: Outbox) -> None:
    await asyncio.gather(*(outbox.intake.append(event()) for _ in range(1200)))
    batch = await claim(outbox, ask(1200, max_bytes=10_000_000))
    dead = [Dead(entry.seq, 4, "rejected", "no") for entry in batch.entries]
    await outbox.queue.settle(Settlement(batch.claim, dead=dead))
    wanted = Filter(state=State.DEAD, reason="rejected", limit=100_000)
    rows = await outbox.inspector.rows(wanted)
    told: list[tuple[int, int]] = []
    gone = await change_rows(
        outbox.repairs.discard,
        rows,
        actor="ada",
        act=act_of(wanted),
        told=lambda *counts: told.append(counts),
    )
    assert len(gone) == 1200
    assert told == [(500, 1200), (1000, 1200), (1200, 1200)]
    await outbox.repairs.set_paused(paused=True, actor="grace", reason="upgrade")

    [pause, discard] = await outbox.inspector.audit(10)
    assert (pause.action, pause.detail, pause.ids) == ("pause", "upgrade", ())
    assert (discard.actor, discard.action) == ("ada", "discard")
    assert discard.detail == "state=dead, reason=rejected, limit=100000"
    assert sorted(discard.ids) == sorted(entry.event_id for entry in batch.entries)
    for entry in (batch.entries[0], batch.entries[700], batch.entries[-1]):
        assert await outbox.inspector.audit(10, event=entry.event_id) == [discard]


async def test_the_audit_of_one_event_has_nothing_of_another(outbox: Outbox) -> None:
    first, second = await bury(outbox, 2)
    for one in (first, second):
        await outbox.repairs.replay(Named((one,)), actor="ada")
    await outbox.repairs.discard(Named((first,)), actor="ada")
    found = await outbox.inspector.audit(10, event=first)
    assert [(one.action, one.ids) for one in found] == [
        ("discard", (first,)),
        ("replay", (first,)),
    ]
    beginning = first[:30]
    assert (await outbox.inspector.audit(10, event=beginning))[0].ids == (first,)
    assert await outbox.inspector.audit(10, event=first[1:]) == []
    assert await outbox.inspector.audit(10, event='"') == []


async def test_a_row_that_changed_after_it_was_shown_is_left_alone(outbox: Outbox) -> None:
    first, second = await bury(outbox, 2)
    wanted = Filter(state=State.DEAD)
    rows = await outbox.inspector.rows(wanted)
    await outbox.repairs.replay(Named((first,)), actor="grace")
    gone = await change_rows(outbox.repairs.discard, rows, actor="ada", act=act_of(wanted))
    assert gone == [second]
    assert (await outbox.inspector.audit(1))[0].ids == (second,)


async def test_a_sign_out_ends_the_sessions_and_leaves_one_audit_row(outbox: Outbox) -> None:
    revisions = SessionRevisions(outbox.settings)
    before = {owner: await revisions.current(owner) for owner in ("dev u-1", "shared u-1")}
    sign_outs = SessionSignOuts(outbox.settings)
    assert await sign_outs.sign_out(["dev u-1", "shared u-1"], actor="ada") == 2
    fresh = SessionRevisions(outbox.settings)
    after = {owner: await fresh.current(owner) for owner in before}
    assert not set(after.values()) & set(before.values())
    [entry] = await outbox.inspector.audit(10)
    assert (entry.actor, entry.action, entry.detail) == ("ada", "sign-out", "dev u-1, shared u-1")
