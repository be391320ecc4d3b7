"""Claiming from an SQLite outbox: which rows a claim takes, and taking them under a lease.

The oldest due rows come first. Beside a backlog the newest rows keep a share, and so do the rows of
owners with few waiting rows while a noisy owner's rows fill the queue. A row that must be sent
alone is taken alone. The invariant: what a claim takes from outbox_ready is in outbox_claims in the
same transaction.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import uuid_utils

from inngest_outbox.outbox.clock import Clock, wall_now_ms
from inngest_outbox.outbox.limits import FAIR_SHARE
from inngest_outbox.outbox.model import Batch, ClaimRequest, Entry, Isolated
from inngest_outbox.outbox.sqlite.file.connection import SQL
from inngest_outbox.outbox.sqlite.file.faults import corrupt

FRESH_MS = 60_000
_END_OF_TIME_MS = 1 << 62
_EXPIRY_MS = 1000
_MAX_RANGES = 3  # the oldest rows, those of a fair share and the newest

_encode = msgspec.json.Encoder().encode
_decode_owners = msgspec.json.Decoder(list[str]).decode
_decode_entries = msgspec.json.Decoder(tuple[Entry, ...]).decode
_decode_numbers = msgspec.json.Decoder(list[int]).decode


class Moment(NamedTuple):
    """Milliseconds since 1970, by the store's own clock and by the wall clock."""

    store: int
    wall: int


class SqliteClaims:
    """Makes the claims of a transaction."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._fresh = FreshRows()
        self._expire_at_ms = 0
        self._next_due_ms: int | None = None
        self._wanted_at_ms: int | None = None  # by the wall clock
        self._abandoned: set[str] = set()
        self._released: set[str] = set()
        self._made: dict[str, dict[int, str]] = {}
        self._expired: list[str] = []
        self.picker = Picker()
        # Of each claim of this process the rows, with their owners.
        self.owners: dict[str, dict[int, str]] = {}

    def recover(self, connection: sqlite3.Connection) -> None:
        """Free the rows that an earlier process claimed or delayed."""
        connection.execute(SQL["RECOVER_DUE"])
        connection.execute(SQL["RECOVER_SENT"], {"now": self._clock.now_ms()})
        _expire(connection, _END_OF_TIME_MS)
        [(waits,)] = connection.execute(SQL["FAIR_SHARE_WAITS"]).fetchall()
        self.picker.may_have_fair_share = bool(waits)
        self._fresh.after(connection, self._clock.now_ms())

    def due_in_seconds(self, *, waiting: bool) -> float | None:
        """Seconds until `apply` wants a transaction of its own; None: not before other work comes.

        0 for abandoned claims; where requests wait, until a row is due or a lease ends.
        """
        if self._abandoned:
            return 0.0
        if not waiting:
            return None
        waits = []
        if self._next_due_ms is not None:
            waits.append(self._next_due_ms - self._clock.now_ms())
        if self._wanted_at_ms is not None:
            waits.append(self._wanted_at_ms - wall_now_ms())
        return max(0, min(waits)) / 1000 if waits else None

    def abandon(self, batch: Batch) -> None:
        """Free the rows of a batch that nobody received, as if it had never been claimed."""
        self.owners.pop(batch.claim, None)
        self._abandoned.add(batch.claim)

    def apply(
        self, connection: sqlite3.Connection, items: Sequence[ClaimRequest]
    ) -> list[Batch | None]:
        """A batch for each request that finds rows, None for the others."""
        now = Moment(self._clock.now_ms(), wall_now_ms())
        self._made, self._expired = {}, []
        self._released = set(self._abandoned)
        for claim in self._released:
            connection.execute(SQL["RELEASE_READY"], {"claim": claim})
            connection.execute(SQL["RELEASE_CLAIM"], {"claim": claim})
        if now.store >= self._expire_at_ms:
            self._expire_at_ms = now.store + _EXPIRY_MS
            self._expired = _expire(connection, now.store)
        batches = [self._claim(connection, request, now) for request in items]
        self._next_due_ms = self._wanted_at_ms = None
        if None in batches:
            values = {"now": now.store, "wall": now.wall}
            [due] = connection.execute(SQL["NEXT_DUE"], values).fetchall()
            self._next_due_ms, self._wanted_at_ms = due
            if self._next_due_ms is not None:
                self._expire_at_ms = min(self._expire_at_ms, self._next_due_ms)
        return batches

    def committed(self, results: Sequence[Batch | None], still_wanted: Sequence[bool]) -> None:
        """Remember the claimed rows; abandon the batches that nobody waits for."""
        self._abandoned -= self._released
        self.picker.may_have_fair_share |= bool(self._released or self._expired)
        self.owners |= self._made
        for claim in set(self._expired):
            self.owners.pop(claim, None)
        for batch, is_wanted in zip(results, still_wanted, strict=True):
            if batch and not is_wanted:
                self.abandon(batch)

    def _claim(
        self, connection: sqlite3.Connection, request: ClaimRequest, now: Moment
    ) -> Batch | None:
        fresh_after = self._fresh.after(connection, now.store)
        seqs = self.picker.pick(connection, request, now, fresh_after)
        if not seqs:
            return None
        claim, rows = str(uuid_utils.uuid7()), _encode(seqs).decode()
        lease_until = now.store + int(request.lease_seconds * 1000)
        values = {"rows": rows, "claim": claim, "now": now.wall, "lease_until": lease_until}
        connection.execute(SQL["CLAIM_LEASE"], values)
        delete_rows(connection, "CLAIM_TAKE", seqs)
        [(entries, owners, payloads)] = connection.execute(SQL["CLAIM_READ"], {"rows": rows})
        try:
            batch = Batch(claim, _decode_entries(entries), payloads)
            owners = _decode_owners(owners)
        except ValueError as error:
            raise corrupt(f"A claimed row can't be read: {error}") from error
        if missing := len(seqs) - len(batch.entries):
            raise corrupt(f"{missing} of the claimed rows have no event")
        self._made[claim] = dict(zip(seqs, owners, strict=True))
        return batch


def delete_rows(
    connection: sqlite3.Connection, name: str, seqs: Sequence[int], **values: object
) -> None:
    """Delete rows by the statement `name`, or by `name`_RANGE where there are few ranges of seqs.

    SQLite walks a range at a third of the cost of a list.
    """
    ranges = ranges_of(seqs)
    for first, last in ranges:
        connection.execute(SQL[f"{name}_RANGE"], {"first": first, "last": last, **values})
    if not ranges:
        connection.execute(SQL[name], {"rows": _encode(seqs).decode(), **values})


def ranges_of(seqs: Sequence[int]) -> Sequence[tuple[int, int]]:
    """The ranges of ascending seqs, none where there are many or the seqs do not ascend.

    >>> ranges_of([4, 5, 6, 9])
    [(4, 6), (9, 9)]
    >>> ranges_of([1, 3, 5, 7])
    ()
    """
    found: list[tuple[int, int]] = []
    first = last = seqs[0]
    for seq in seqs[1:]:
        if seq == last + 1:
            last = seq
            continue
        found.append((first, last))
        if seq < last or len(found) == _MAX_RANGES:
            return ()
        first = last = seq
    return [*found, (first, last)]


def _expire(connection: sqlite3.Connection, until_ms: int) -> list[str]:
    """Free the rows whose lease ended by then; a claim for each row."""
    connection.execute(SQL["EXPIRE_READY"], {"until": until_ms})
    expired = connection.execute(SQL["EXPIRE_CLAIMS"], {"until": until_ms}).fetchall()
    return [claim for (claim,) in expired]


class FreshRows:
    """The fresh rows: those accepted since the start, at most one or two minutes ago.

    While posts come in, fresh rows keep a share of each claim beside a backlog. Without posts a
    backlog is claimed in its order, which costs SQLite a fifth less than claiming from both ends.
    """

    def __init__(self) -> None:
        self._after = self._next_after = 0
        self._until_ms: int | None = None

    def after(self, connection: sqlite3.Connection, now_ms: int) -> int:
        """The seq after which rows are fresh. Rows before the first call are not."""
        if self._until_ms is None or now_ms >= self._until_ms:
            [(newest,)] = connection.execute(SQL["NEWEST"]).fetchall()
            self._after = newest if self._until_ms is None else self._next_after
            self._next_after = newest
            self._until_ms = now_ms + FRESH_MS
        return self._after


class Picker:
    """Picks rows; remembers whether rows with a fair share may wait, so that looking is cheap."""

    def __init__(self) -> None:
        self.may_have_fair_share = False
        self._oldest_turn = False

    def pick(
        self, connection: sqlite3.Connection, request: ClaimRequest, now: Moment, fresh_after: int
    ) -> list[int]:
        """The rows to claim, in the order of their acceptance."""
        if request.isolated is Isolated.FIRST:
            isolated, _ = _due(connection, "PICK_ISOLATED", 1, at=now.store)
            if isolated:
                return isolated
        due, size = _due(connection, "PICK_OLDEST", request.max_events, at=now.store, wall=now.wall)
        if not due and request.isolated is Isolated.LAST:
            return _due(connection, "PICK_ISOLATED", 1, at=now.store)[0]
        if len(due) < request.max_events and size <= request.max_bytes:
            return sorted(due)
        self._oldest_turn = not self._oldest_turn and request.fresh_share < 1
        fair, large = self._fair(connection, request)
        if large:
            return large
        share = min(request.fresh_share, 1 - FAIR_SHARE) if fair else request.fresh_share
        newest = _newest(connection, request, fresh_after, share)
        joined = _joined(
            connection, request, due, size, shares=[(fair, FAIR_SHARE), (newest, share)]
        )
        # Where the oldest row and others do not fit together, it is the turn of one of them.
        return due[:1] if self._oldest_turn and due[0] not in joined else joined

    def _fair(
        self, connection: sqlite3.Connection, request: ClaimRequest
    ) -> tuple[list[int], list[int]]:
        """The share of quiet owners' rows, or one that is larger than the share, to go alone."""
        if not self.may_have_fair_share or request.fresh_share >= 1:
            return [], []
        count = int(request.max_events * FAIR_SHARE) or int(not self._oldest_turn)
        due, size = _due(connection, "PICK_FAIR_SHARE", count)
        self.may_have_fair_share = bool(due) or count == 0
        fitting = _fitting(connection, due, size, int(request.max_bytes * FAIR_SHARE))
        return fitting, [] if fitting or self._oldest_turn else due[:1]


def _joined(
    connection: sqlite3.Connection,
    request: ClaimRequest,
    due: list[int],
    size: float,
    *,
    shares: Sequence[tuple[list[int], float]],
) -> list[int]:
    """The rows of the shares, and the oldest rows in the rest of the batch."""
    ahead: dict[int, None] = {}
    room = request.max_bytes
    for seqs, share in shares:
        if seqs:
            ahead |= dict.fromkeys(seqs)
            room -= int(request.max_bytes * share)
    slots = request.max_events - len(ahead)
    rest = [seq for seq in due if seq not in ahead][:slots]
    taken = _fitting(connection, rest, size, room) or ([] if ahead else rest[:1])
    return sorted([*taken, *ahead])


def _newest(
    connection: sqlite3.Connection, request: ClaimRequest, fresh_after: int, share: float
) -> list[int]:
    """The newest rows' share. It is of fresh rows; a share of 1 is of all rows."""
    whole = share >= 1
    count = int(request.max_events * share)
    room = int(request.max_bytes * share)
    due, size = _due(connection, "PICK_NEWEST", count, at=0 if whole else fresh_after)
    return _fitting(connection, due, size, room) or (due[:1] if whole else [])


def _due(
    connection: sqlite3.Connection, name: str, limit: int, **values: int
) -> tuple[list[int], float]:
    """The rows that a PICK finds, and the size of their payloads in all."""
    [(seqs, size)] = connection.execute(SQL[name], {"limit": limit, **values}).fetchall()
    return _decode_numbers(seqs), size


def _fitting(
    connection: sqlite3.Connection, seqs: list[int], size: float, max_bytes: int
) -> list[int]:
    """As many of the first rows as the bytes allow; `size` is of all of them, or more."""
    if size <= max_bytes:
        return seqs
    [(sizes,)] = connection.execute(SQL["SIZES"], {"rows": _encode(seqs).decode()}).fetchall()
    totals = itertools.accumulate(_decode_numbers(sizes))
    return seqs[: sum(1 for _ in itertools.takewhile(lambda total: total <= max_bytes, totals))]
