"""Which rows a claim takes.

The oldest due rows come first. Beside a backlog the newest rows keep a share, and so do the rows of
owners with few waiting rows while another owner's rows fill the queue. A row that must be sent
alone is taken alone.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Sequence

import msgspec

from service.outbox.fair_share import EXPRESS_SHARE
from service.outbox.model import ClaimRequest, Isolated
from service.outbox.sqlite import statements

_encode = msgspec.json.Encoder().encode
_decode_numbers = msgspec.json.Decoder(list[int]).decode


class Picker:
    """Picks rows; remembers whether express rows may wait, so that looking costs nothing else."""

    def __init__(self) -> None:
        self.may_have_express = False
        self._oldest_turn = False

    def pick(
        self, connection: sqlite3.Connection, request: ClaimRequest, now: int, fresh_after: int
    ) -> list[int]:
        """The rows to claim, in the order of their acceptance."""
        if request.isolated is Isolated.FIRST:
            isolated, _ = _due(connection, statements.PICK_ISOLATED, now, 1)
            if isolated:
                return isolated
        due, size = _due(connection, statements.PICK_OLDEST, now, request.max_events)
        if not due and request.isolated is Isolated.LAST:
            return _due(connection, statements.PICK_ISOLATED, now, 1)[0]
        if len(due) < request.max_events and size <= request.max_bytes:
            return sorted(due)
        self._oldest_turn = not self._oldest_turn and request.fresh_share < 1
        express, large = self._express(connection, request)
        if large:
            return large
        share = min(request.fresh_share, 1 - EXPRESS_SHARE) if express else request.fresh_share
        newest = _newest(connection, request, fresh_after, share)
        shares = [(express, EXPRESS_SHARE), (newest, share)]
        joined = _joined(connection, request, due, size, shares)
        # Where the oldest row and others do not fit together, it is the turn of one of them.
        return due[:1] if self._oldest_turn and due[0] not in joined else joined

    def _express(
        self, connection: sqlite3.Connection, request: ClaimRequest
    ) -> tuple[list[int], list[int]]:
        """The express rows' share, or else one that is larger than the share, to go alone."""
        if not self.may_have_express or request.fresh_share >= 1:
            return [], []
        count = int(request.max_events * EXPRESS_SHARE) or int(not self._oldest_turn)
        due, size = _due(connection, statements.PICK_EXPRESS, 0, count)
        self.may_have_express = bool(due) or count == 0
        fitting = _fitting(connection, due, size, int(request.max_bytes * EXPRESS_SHARE))
        return fitting, [] if fitting or self._oldest_turn else due[:1]


def _joined(
    connection: sqlite3.Connection,
    request: ClaimRequest,
    due: list[int],
    size: float,
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
    after = 0 if whole else fresh_after
    due, size = _due(connection, statements.PICK_NEWEST, after, count)
    return _fitting(connection, due, size, room) or (due[:1] if whole else [])


def _due(
    connection: sqlite3.Connection, statement: str, at: int, limit: int
) -> tuple[list[int], float]:
    """The rows that a PICK finds, and the size of their payloads in all."""
    [(seqs, size)] = connection.execute(statement, (at, limit)).fetchall()
    return _decode_numbers(seqs), size


def _fitting(
    connection: sqlite3.Connection, seqs: list[int], size: float, max_bytes: int
) -> list[int]:
    """As many of the first rows as the bytes allow; `size` is of all of them, or more."""
    if size <= max_bytes:
        return seqs
    [(sizes,)] = connection.execute(statements.SIZES, (_encode(seqs).decode(),)).fetchall()
    totals = itertools.accumulate(_decode_numbers(sizes))
    return seqs[: sum(1 for _ in itertools.takewhile(lambda total: total <= max_bytes, totals))]
