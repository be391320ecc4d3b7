"""Moving a stopped outbox into another store: every event with its id, state, history and key.

One pass copies all rows into an empty target, in pages. The invariant: a move is finished only when
source and target agree in count and checksum. Delayed events stay delayed until their time. The
delays of retries and claims are not kept: such rows are due, and claimed rows may have been sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import msgspec

from inngest_outbox.errors import OutboxMoveError
from inngest_outbox.outbox.move.transfer import TransferRow, TransferStore

PAGE = 500


class Total(msgspec.Struct, frozen=True, gc=False):
    """The rows of an outbox by state, and a checksum that does not depend on their order."""

    rows: int
    pending: int
    sent: int
    delivered: int
    dead: int
    checksum: str


class Moved(msgspec.Struct, frozen=True, gc=False):
    """A finished move: rows written now, and the total of the target."""

    written: int
    total: Total


def move(
    source: TransferStore,
    opening: AbstractContextManager[TransferStore],
    *,
    actor: str,
    progress: Callable[[int, int], None],
) -> Moved:
    """Move everything. Safe to repeat and to interrupt: an unfinished move begins again.

    `opening` opens the target, once the source is known to be unserved. `progress` gets the rows
    copied so far and the rows in all. Raises OutboxMoveError when either outbox is served, when the
    target holds events of its own, or when it differs from the source afterwards.
    """
    with _unserved(source, "source"), opening as target, _unserved(target, "target"):
        wanted = total(source)
        if _is_finished(target, wanted):
            return Moved(0, wanted)
        _empty_target(target, actor)
        written = _copy(source, target, lambda done: progress(done, wanted.rows))
        target.metadata.write(source.metadata.read())
        there = total(target)
        if there != wanted:
            raise OutboxMoveError(f"The target holds {there}, the source {wanted}: move again.")
        source.metadata.note_move(actor, f"left {there.checksum}")
        target.metadata.note_move(actor, f"finished {there.checksum}")
        return Moved(written, there)


@contextmanager
def _unserved(store: TransferStore, name: str) -> Iterator[None]:
    with store.unserved() as is_ours:
        if not is_ours:
            raise OutboxMoveError(f"The {name} is being served; stop its service first.")
        yield


def total(store: TransferStore) -> Total:
    """Count and checksum of everything that a move keeps."""
    counts = {"pending": 0, "sent": 0, "delivered": 0, "dead": 0}
    checksum = 0
    for page in _pages(store):
        for event in page:
            counts[event.state] += 1
            checksum ^= int.from_bytes(event.digest(), "big")
    return Total(sum(counts.values()), **counts, checksum=f"{checksum:064x}")


def _is_finished(target: TransferStore, wanted: Total) -> bool:
    moves = target.metadata.moves()
    return moves[-1:] == [f"finished {wanted.checksum}"] and total(target) == wanted


def _empty_target(target: TransferStore, actor: str) -> None:
    """Empty a target that an unfinished move filled, or that was the source of an earlier move.

    Raises OutboxMoveError for one that holds events of its own.
    """
    moves = target.metadata.moves()
    is_left_over = bool(moves) and moves[-1].startswith(("begun", "left"))
    if not is_left_over and target.events.page(0, 1):
        raise OutboxMoveError("The target holds events of its own; move into an empty outbox.")
    target.metadata.note_move(actor, "begun")
    target.events.clear()


def _copy(source: TransferStore, target: TransferStore, progress: Callable[[int], None]) -> int:
    written = 0
    for page in _pages(source):
        target.events.write(page, source.events.payloads([event.id for event in page]))
        written += len(page)
        progress(written)
    return written


def _pages(store: TransferStore) -> Iterator[list[TransferRow]]:
    after = 0
    while page := store.events.page(after, PAGE):
        yield page
        after = page[-1].seq
