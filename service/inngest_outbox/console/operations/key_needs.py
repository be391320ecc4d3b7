"""The encryption keys that waiting events need: those that are not delivered, dead ones too.

Keys are named by their places in OUTBOX_ENCRYPTION_KEY, from 1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import msgspec

from inngest_outbox.console.operations.search import Search
from inngest_outbox.encryption import MARK, Encryption
from inngest_outbox.identity.user import EVENT_KEY_ISSUER
from inngest_outbox.outbox.model import Filter, Row, State
from inngest_outbox.outbox.parts import ReadParts

_LOOKED_AT = 1_000


class KeyNeeds(msgspec.Struct, frozen=True):
    """The waiting events by the key that opens them.

    `events` has a count for each configured key. `missing` events of people need another key; what
    a machine encrypted under a key of its own counts nowhere. With `is_bounded` more events wait
    than were looked at.
    """

    events: tuple[int, ...]
    missing: int
    is_bounded: bool

    @property
    def fault(self) -> str | None:
        """A sentence where a key is missing."""
        if not self.missing:
            return None
        return (
            f"{_counted(self.missing)} another key than OUTBOX_ENCRYPTION_KEY has: "
            "add it after the others"
        )

    @property
    def words(self) -> str:
        """The configured keys that are needed, and those that are not."""
        return "; ".join(self._sentences())

    def _sentences(self) -> Iterator[str]:
        for place, count in enumerate(self.events, 1):
            if count:
                yield f"{_counted(count)} key {place}"
            elif not self.is_bounded:
                yield f"no waiting event needs key {place}"
        if self.is_bounded:
            yield "more wait than were looked at: keep every key"


async def key_needs(outbox: ReadParts, encryption: Encryption | None) -> KeyNeeds:
    """Look at the newest waiting events of each state, a thousand at most.

    Raises OutboxUnavailableError.
    """
    search = Search(outbox.inspector, outbox.positions)
    opened: Counter[int | None] = Counter()
    is_bounded = False
    for state in (State.PENDING, State.DELIVERING, State.SENT, State.DEAD):
        found = await search.find(Filter(state=state, payload_part=MARK, limit=_LOOKED_AT))
        is_bounded |= found.next_seq is not None
        for row in found.rows:
            payload = await outbox.inspector.payload(row.id)
            if payload is None:  # it was removed meanwhile
                continue
            place = encryption.revealed(payload)[1] if encryption else None
            opened[place] += place is not None or _is_of_a_person(row)
    keys = encryption.keys if encryption else 0
    return KeyNeeds(tuple(opened[place] for place in range(keys)), opened[None], is_bounded)


def _is_of_a_person(row: Row) -> bool:
    return row.owner.partition(" ")[0] != EVENT_KEY_ISSUER


def _counted(count: int) -> str:
    return "1 waiting event needs" if count == 1 else f"{count:,} waiting events need"
