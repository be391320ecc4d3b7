"""The outbox in figures: of now, by owner, and a minute at a time."""

from __future__ import annotations

import msgspec

from inngest_outbox.outbox.model import DeliveryRecord

KEPT_MS = 7 * 86_400_000  # as long as delivered rows by default: the charts and stories of events
MINUTE_MS = 60_000
# The longest pause between two tries of one event: a row does not stop being due meanwhile.
SOON_MS = 5_000


class Stats(msgspec.Struct, frozen=True, gc=False):
    """The outbox in figures. `sent` rows were answered and are not confirmed.

    `oldest_pending_seconds` is the age of the oldest pending or delivering row, None without one.
    `oldest_due_seconds` is the longest wait of a row that is due within SOON_MS or delivering: a
    delayed one waits from its `sendAt` on. Sizes are bytes; `wal_bytes` is None where the store has
    no such file.
    """

    pending: int
    delivering: int
    delivered: int
    dead: int
    oldest_pending_seconds: float | None
    oldest_due_seconds: float | None
    delivery: DeliveryRecord
    database_bytes: int
    wal_bytes: int | None
    sent: int = 0


class OwnerShare(msgspec.Struct, frozen=True, gc=False):
    """The rows of one owner in every state, and the bytes of their payloads."""

    owner: str
    rows: int
    bytes: int


GROUPED_ROWS = 20_000  # of the dead rows, the newest: those that people see in groups


class DeadGroup(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """The dead rows of one event name and reason; `detail` is that of the row that died last."""

    name: str
    reason: str
    rows: int
    latest_ms: int
    detail: str


class Sample(msgspec.Struct, frozen=True, gc=False):
    """One minute, which begins at `at_ms` (whole minutes since 1970).

    `waiting` is the most rows that were pending, delivering or sent. Rates are events per
    second. `state` is the worst state of delivery as people see it, `reason` its reason.
    """

    at_ms: int
    waiting: int
    dead: int
    accepted_rate: float
    delivered_rate: float
    state: str
    reason: str
