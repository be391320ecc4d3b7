"""The story of an event, in the order of time. Pure."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence

import msgspec

from inngest_outbox.console.operations.explain import spoken_duration
from inngest_outbox.outbox.figures import MINUTE_MS, Sample
from inngest_outbox.outbox.model import Row, State

_FIRST_TROUBLES, _MAX_TROUBLES = 10, 20
_HEALTHY = "healthy"
_GAP_MS = 3 * MINUTE_MS  # minutes without a sample between two of the same trouble


class Kind(enum.StrEnum):
    """The kind of a moment."""

    ACCEPTED = "accepted"
    CLAIMED = "claimed"
    NOTE = "note"
    TROUBLE = "trouble"
    DELIVERED = "delivered"
    DEAD = "dead"
    NEXT = "next"


class Moment(msgspec.Struct, frozen=True, gc=False):
    """One moment of an event's life.

    `at_ms` is None for what is still to come. `after_seconds` counts from its acceptance.
    """

    kind: Kind
    words: str
    at_ms: int | None = None
    after_seconds: float | None = None


def timeline(row: Row, troubles: Sequence[Trouble] = ()) -> list[Moment]:
    """The moments of a row and of its times' troubles, the oldest first; what is next is last."""
    known = [*_sends(row), *_notes(row), *_end(row), *_troubles(row, troubles)]
    known.sort(key=lambda moment: moment.at_ms or 0)
    accepted = Moment(Kind.ACCEPTED, "Accepted, and synced to disk", row.accepted_at_ms)
    return [accepted, *(_after(moment, row.accepted_at_ms) for moment in known), *_next(row)]


def _sends(row: Row) -> Iterator[Moment]:
    if row.first_sent_at_ms is not None:
        yield Moment(Kind.CLAIMED, "Sent to Inngest for the first time", row.first_sent_at_ms)


def _notes(row: Row) -> Iterator[Moment]:
    for note in row.history:
        yield Moment(Kind.NOTE, note.note[:1].upper() + note.note[1:], note.at)


def _troubles(row: Row, troubles: Sequence[Trouble]) -> Iterator[Moment]:
    """The first and the last troubles. One that began before the event begins with it."""
    left_out = len(troubles) - _MAX_TROUBLES
    shown = [*troubles[:_FIRST_TROUBLES], *troubles[_FIRST_TROUBLES + left_out :]]
    for one in troubles if left_out <= 0 else shown:
        from_ms = max(one.from_ms, row.accepted_at_ms)
        lasted = spoken_duration(max(MINUTE_MS, one.until_ms - from_ms) / 1000)
        yield Moment(Kind.TROUBLE, f"{one.words}, for {lasted}", from_ms)
    if left_out > 0:
        last_ms = troubles[_FIRST_TROUBLES + left_out].from_ms
        yield Moment(Kind.TROUBLE, f"{left_out:,} more troubles of delivery", last_ms - 1)


def _end(row: Row) -> Iterator[Moment]:
    if row.state is State.DELIVERED:
        yield Moment(Kind.DELIVERED, "Delivered: Inngest has it", row.settled_at_ms)
    elif row.state is State.DEAD:
        yield Moment(Kind.DEAD, f"Dead: {row.reason}", row.settled_at_ms)


def _next(row: Row) -> Iterator[Moment]:
    if row.state is State.PENDING:
        wait = spoken_duration(row.due_in_seconds) if row.due_in_seconds else None
        yield Moment(Kind.NEXT, f"Due in {wait}" if wait else "Due now")
    elif row.state is State.DELIVERING:
        lease = spoken_duration(row.lease_in_seconds or 0.0)
        yield Moment(Kind.NEXT, f"Being sent; without an answer it is due again in {lease}")
    elif row.state is State.SENT:
        yield Moment(Kind.NEXT, "Inngest has answered and is asked until it holds the event")


def _after(moment: Moment, accepted_at_ms: int) -> Moment:
    if moment.at_ms is None:
        return moment
    after = (moment.at_ms - accepted_at_ms) / 1000
    return msgspec.structs.replace(moment, after_seconds=after if after > 0 else None)


class Trouble(msgspec.Struct, frozen=True, gc=False):
    """A time in which delivery was in one state other than healthy, to the minute."""

    from_ms: int
    until_ms: int
    state: str
    reason: str

    @property
    def words(self) -> str:
        """The trouble as a sentence, without its times."""
        said = f": {self.reason}" if self.reason else ""
        return f"Delivery was {self.state.replace('_', ' ')}{said}"


def troubles(samples: Sequence[Sample]) -> list[Trouble]:
    """The troubles of these minutes, the oldest first."""
    found: list[Trouble] = []
    for one in samples:
        if one.state == _HEALTHY:
            continue
        last = found[-1] if found else None
        if last and last.state == one.state and one.at_ms - last.until_ms <= _GAP_MS:
            found[-1] = msgspec.structs.replace(last, until_ms=one.at_ms + MINUTE_MS)
        else:
            found.append(Trouble(one.at_ms, one.at_ms + MINUTE_MS, one.state, one.reason))
    return found
