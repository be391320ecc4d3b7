"""Changing an SQLite outbox by a person's command, the delivery record and the settings scopes.

`SqliteWrites` runs single jobs inside the writer's group transactions. The invariant: nothing here
touches a row under a claim, and every operator action leaves an audit row in its own commit.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple, TypeVar

import msgspec

from service.outbox.clock import wall_now_ms
from service.outbox.model import DeliveryRecord, Filter, State
from service.outbox.sqlite.reader import DELIVERY, delivery_record, matching

# A dead row is pending again, with no attempts counted.
REPLAY = """
INSERT INTO outbox_ready (seq, payload_bytes, sends, first_sent_at_ms, history)
SELECT seq, length(payload), sends, first_sent_at_ms,
       json_insert(coalesce(history, '[]'), '$[#]', json_object('at', :now, 'note', :note))
FROM json_each(:seqs) CROSS JOIN outbox_done ON seq = value CROSS JOIN outbox USING (seq)
"""

_NAMED = "WHERE seq IN (SELECT value FROM json_each(:seqs))"
FORGET_READY = f"DELETE FROM outbox_ready {_NAMED}"
FORGET_DONE = f"DELETE FROM outbox_done {_NAMED}"
FORGET_SENT = f"DELETE FROM outbox_sent {_NAMED}"
FORGET_ROW = f"DELETE FROM outbox {_NAMED}"

# Settled rows come roughly in the order of their acceptance, so a page ends the pass when all its
# rows were accepted after the limit.
PAGE = """
SELECT max(seq), min(accepted_at_ms) FROM (
    SELECT seq FROM outbox_done WHERE seq > :after ORDER BY seq LIMIT 500)
    CROSS JOIN outbox USING (seq)
"""
PURGEABLE = """
SELECT json_group_array(seq) FROM outbox_done
WHERE seq > :after AND seq <= :upto AND dead = 0 AND settled_at_ms <= :before
"""

SAVE_DELIVERY = """
UPDATE outbox_delivery SET state = :state, reason = :reason, batch_window = :window,
       failures = :failures, reopens_at_ms = :reopens_at_ms, since_ms = :since_ms, rate = :rate,
       revision = revision + 1
"""
SET_PAUSED = "UPDATE outbox_delivery SET paused_by = :paused_by, revision = revision + 1"
SAVE_SCOPE = """
INSERT INTO outbox_settings (scope, scope_id, settings) VALUES (:scope, :scope_id, :settings)
ON CONFLICT (scope, scope_id) DO UPDATE SET settings = excluded.settings
"""
AUDIT = """
INSERT INTO outbox_audit (at_ms, actor, action, detail) VALUES (:now, :actor, :action, :detail)
"""

T = TypeVar("T")
Job = Callable[[sqlite3.Connection], T]


def nothing(result: object) -> None:
    """For a job that changes nothing in memory."""


class Write(NamedTuple):
    """One job; `done` gets its result after the commit, also when nobody waits for it any more."""

    job: Job[Any]
    done: Callable[[Any], None] = nothing


class SqliteWrites:
    """The kind of work that runs one job inside the group's transaction (see `Kind`)."""

    synced: ClassVar[bool] = True

    def apply(self, connection: sqlite3.Connection, works: Sequence[Write]) -> list[Any]:
        """The result of each job. A job returns something that is not None."""
        return [work.job(connection) for work in works]

    def committed(
        self, works: Sequence[Write], results: Sequence[Any], taken: Sequence[bool]
    ) -> None:
        """What was changed in the file is changed in memory."""
        del taken
        for work, result in zip(works, results, strict=True):
            work.done(result)

    def failed(self, works: Sequence[Write]) -> None:
        """Nothing to undo."""


class Removed(msgspec.Struct, frozen=True, gc=False):
    """Rows that a command changed: their ids, and how many undelivered rows of each owner."""

    ids: list[str]
    pending_by_owner: dict[str, int]


def replay(wanted: Filter, actor: str) -> Job[Removed]:
    """Dead rows that match become pending; with the state DELIVERED, delivered ones."""
    settled = msgspec.structs.replace(wanted, state=wanted.state or State.DEAD)

    def job(connection: sqlite3.Connection) -> Removed:
        now = wall_now_ms()
        done = settled.state in (State.DEAD, State.DELIVERED)
        rows = matching(connection, settled, now) if done else []
        seqs = _seqs(rows)
        connection.execute(REPLAY, {"seqs": seqs, "now": now, "note": f"replayed by {actor}"})
        connection.execute(FORGET_DONE, {"seqs": seqs})
        _audit(connection, actor, "replay", rows)
        return _removed(rows)

    return job


def discard(wanted: Filter, actor: str) -> Job[Removed]:
    """Rows that match and are not under a claim go for good."""

    def job(connection: sqlite3.Connection) -> Removed:
        found = matching(connection, wanted, wall_now_ms())
        rows = [row for row in found if row[5] != "delivering"]
        _forget(connection, _seqs(rows))
        _audit(connection, actor, "discard", rows)
        return _removed([row for row in rows if row[5] in ("pending", "sent")], rows)

    return job


def purge_page(after: int, older_than_seconds: float) -> Job[tuple[int | None, int]]:
    """One page of delivered rows: (where the next page starts or None at the end, rows gone)."""

    def job(connection: sqlite3.Connection) -> tuple[int | None, int]:
        before = wall_now_ms() - int(older_than_seconds * 1000)
        [(upto, accepted_at_ms)] = connection.execute(PAGE, {"after": after}).fetchall()
        if upto is None:
            return None, 0
        page = {"after": after, "upto": upto, "before": before}
        [(seqs,)] = connection.execute(PURGEABLE, page).fetchall()
        gone = _forget(connection, seqs)
        return (None if accepted_at_ms > before else upto), gone

    return job


def audited(actor: str, action: str, detail: str) -> Job[bool]:
    """One audit row."""

    def job(connection: sqlite3.Connection) -> bool:
        _write_audit(connection, actor, action, detail)
        return True

    return job


def save_delivery(record: DeliveryRecord) -> Job[DeliveryRecord]:
    """The delivery's own fields; the record that then stands."""

    def job(connection: sqlite3.Connection) -> DeliveryRecord:
        now = wall_now_ms()
        connection.execute(
            SAVE_DELIVERY,
            {
                "state": record.state,
                "reason": record.reason,
                "window": record.window,
                "failures": record.failures,
                "reopens_at_ms": now + int(record.reopens_in_seconds * 1000),
                "since_ms": record.since_ms,
                "rate": record.rate,
            },
        )
        return load_delivery(connection)

    return job


def set_paused(actor: str, *, paused: bool) -> Job[DeliveryRecord]:
    """Pause or resume; the record that then stands."""

    def job(connection: sqlite3.Connection) -> DeliveryRecord:
        connection.execute(SET_PAUSED, {"paused_by": actor if paused else None})
        _write_audit(connection, actor, "pause" if paused else "resume", "")
        return load_delivery(connection)

    return job


def save_scope(scope: str, scope_id: str, settings: dict[str, object]) -> Job[bool]:
    """Replace one scope's settings."""

    def job(connection: sqlite3.Connection) -> bool:
        connection.execute(
            SAVE_SCOPE,
            {
                "scope": scope,
                "scope_id": scope_id,
                "settings": msgspec.json.encode(settings).decode(),
            },
        )
        return True

    return job


def load_delivery(connection: sqlite3.Connection) -> DeliveryRecord:
    """The delivery as it stands."""
    [row] = connection.execute(DELIVERY).fetchall()
    return delivery_record(row, wall_now_ms())


def _forget(connection: sqlite3.Connection, seqs: str) -> int:
    """Remove rows, which the caller knows to be under no claim; how many."""
    for statement in (FORGET_READY, FORGET_SENT, FORGET_DONE):
        connection.execute(statement, {"seqs": seqs})
    return connection.execute(FORGET_ROW, {"seqs": seqs}).rowcount


def _seqs(rows: Sequence[tuple[Any, ...]]) -> str:
    return msgspec.json.encode([row[0] for row in rows]).decode()


def _removed(
    pending: Sequence[tuple[Any, ...]], rows: Sequence[tuple[Any, ...]] | None = None
) -> Removed:
    by_owner: dict[str, int] = {}
    for row in pending:
        by_owner[row[3]] = by_owner.get(row[3], 0) + 1
    return Removed([row[1] for row in (pending if rows is None else rows)], by_owner)


def _audit(
    connection: sqlite3.Connection, actor: str, action: str, rows: Sequence[tuple[Any, ...]]
) -> None:
    shown = ", ".join(row[1] for row in rows[:20])
    more = f" and {len(rows) - 20} more" if len(rows) > 20 else ""  # noqa: PLR2004
    _write_audit(connection, actor, action, f"{len(rows)} rows: {shown}{more}")


def _write_audit(connection: sqlite3.Connection, actor: str, action: str, detail: str) -> None:
    connection.execute(
        AUDIT, {"now": wall_now_ms(), "actor": actor, "action": action, "detail": detail}
    )
