"""Moving an outbox into another store: every event with its id, state, history and key.

A pass copies the rows that are missing or different in the target. So an interrupted move continues
where it stopped, and most rows can be copied while the source still serves. The move is finished
when nobody wrote the source during a pass, and source and target then agree in count and checksum.
Held events stay held until their time. The delays of retries and claims are not kept: delayed rows
are due, claimed rows may have been sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from service.errors import OutboxMoveError
from service.outbox.clock import wall_now_ms
from service.outbox.move.transfer import Missing, TransferRow, TransferStore

PAGE = 500


class Total(msgspec.Struct, frozen=True, gc=False):
    """What an outbox holds: rows by state, and a checksum that does not depend on their order."""

    rows: int
    pending: int
    sent: int
    delivered: int
    dead: int
    checksum: str


class Moved(msgspec.Struct, frozen=True, gc=False):
    """A pass: rows written and removed in the target, its total, and whether the move is finished.

    `finished` is false when the source was written meanwhile: stop its service, move again. The
    `missing` rows were left out, because the source lacks a part of them.
    """

    written: int
    removed: int
    total: Total
    finished: bool
    missing: Missing


def move(
    source: TransferStore,
    target: TransferStore,
    *,
    actor: str,
    progress: Callable[[int], None],
) -> Moved:
    """One pass of a move. Safe to repeat and to interrupt.

    `progress` gets the rows compared so far. Raises OutboxMoveError when the target holds events of
    its own, is served, or differs from the source after what should be the last pass.
    """
    with source.unserved() as source_is_ours, target.unserved() as target_is_ours:
        if not target_is_ours:
            raise OutboxMoveError("The target is being served; stop its service first.")
        before = total(source)
        if source_is_ours and target.metadata.moves()[-1:] == [f"finished {before.checksum}"]:
            there = total(target)
            if there == before:
                return Moved(0, 0, there, finished=True, missing=source.events.missing())
        _claim_target(target, actor)
        # A key may have been used again since the last pass, by another event.
        removed = _remove_rest(source, target)
        written = _copy(source, target, progress)
        target.metadata.write(source.metadata.read())
        now, there = total(source), total(target)
        if source_is_ours and now == before and there != now:
            raise OutboxMoveError(f"The target holds {there}, the source {now}.")
        finished = source_is_ours and there == now
        if finished:
            source.metadata.note_move(actor, f"left {there.checksum}")
            target.metadata.note_move(actor, f"finished {there.checksum}")
        return Moved(written, removed, there, finished, source.events.missing())


def total(store: TransferStore) -> Total:
    """Count and checksum of everything that a move keeps."""
    counts = {"pending": 0, "sent": 0, "delivered": 0, "dead": 0}
    checksum = 0
    for event in _all(store):
        counts[event.state] += 1
        checksum ^= int.from_bytes(event.digest(), "big")
    return Total(sum(counts.values()), **counts, checksum=f"{checksum:064x}")


def _claim_target(target: TransferStore, actor: str) -> None:
    """Refuse a target that holds events of its own.

    It may be empty, partly filled by an earlier pass, or the source of an earlier move.
    """
    moves = target.metadata.moves()
    if moves and moves[-1].startswith("begun"):
        return
    was_left = bool(moves) and moves[-1].startswith("left")
    if not was_left and target.events.page(0, 1):
        raise OutboxMoveError("The target holds events of its own; move into an empty outbox.")
    target.metadata.note_move(actor, "begun")


def _copy(source: TransferStore, target: TransferStore, progress: Callable[[int], None]) -> int:
    written = gone_through = 0
    for page in _pages(source):
        now = wall_now_ms()
        known = target.events.by_ids([one.id for one in page])
        there = {event.id: _kept(event, now) for event in known}
        wanted = [event for event in page if there.get(event.id) != _kept(event, now)]
        if wanted:
            payloads = source.events.payloads([event.id for event in wanted])
            # The next pass handles events that a live source has removed meanwhile.
            target.events.write([event for event in wanted if event.id in payloads], payloads)
            written += len(wanted)
        gone_through += len(page)
        progress(gone_through)
    return written


def _kept(event: TransferRow, now: int) -> tuple[bytes, int]:
    """What two stores must agree in; an event whose time has come is no longer held."""
    return event.digest(), max(event.due_at_ms, now)


def _remove_rest(source: TransferStore, target: TransferStore) -> int:
    removed = 0
    for page in _pages(target):
        kept = {event.id for event in source.events.by_ids([one.id for one in page])}
        rest = [event.id for event in page if event.id not in kept]
        if rest:
            target.events.remove(rest)
            removed += len(rest)
    return removed


def _all(store: TransferStore) -> Iterator[TransferRow]:
    for page in _pages(store):
        yield from page


def _pages(store: TransferStore) -> Iterator[list[TransferRow]]:
    after = 0
    while page := store.events.page(after, PAGE):
        yield page
        after = page[-1].seq
