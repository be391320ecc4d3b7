"""Events and metadata as a move has them."""

from __future__ import annotations

import hashlib
from typing import Any

from service.outbox.inngest_id import InngestIds
from service.outbox.move.transfer import Metadata, TransferRow

PREFIX = b"abcdef"
PLAIN: dict[str, Any] = {
    "name": "n", "owner": "o", "user_id": "u", "accepted_at_ms": 1_000_000, "state": "pending",
    "attempts": 0, "sends": 0, "isolated": False, "first_sent_at_ms": None, "settled_at_ms": None,
    "reason": None, "detail": None, "history": (), "trace": None, "key": None, "key_digest": None,
    "wire_id": None, "environment": None, "due_at_ms": 0,
}  # fmt: skip


def row(seq: int, **changed: Any) -> TransferRow:
    """A row as a move has it; its bytes are its id's."""
    event_id = f"e-{seq}"
    sha = hashlib.sha256(payload(event_id)).hexdigest()
    inngest_id = InngestIds(PREFIX).ulid(seq, PLAIN["accepted_at_ms"])
    named = {"seq": seq, "id": event_id, "payload_sha256": sha, "inngest_id": inngest_id}
    return TransferRow(**{**PLAIN, **named, **changed})


def payload(event_id: str) -> bytes:
    return f'{{"id":"{event_id}"}}'.encode()


def payloads(*rows: TransferRow) -> dict[str, bytes]:
    return {one.id: payload(one.id) for one in rows}


PAST = {"isolated": True, "attempts": 2, "sends": 3, "first_sent_at_ms": 7}
NOTED = {**PAST, "history": ((5, "a note"), (6, "another"))}
ROWS = [
    row(1, **NOTED, trace="t", key="k", key_digest="00ff", wire_id="w", environment="branch"),
    row(2, **NOTED, state="sent", settled_at_ms=9),
    row(3, **NOTED, state="delivered", settled_at_ms=10),
    row(4, **NOTED, state="dead", settled_at_ms=11, reason="rejected", detail="words"),
    row(5),
]

AUDIT = [
    ("act-1", 5, "ada", "discard", "by hand", '["e-1"]'),
    ("act-2", 6, "bob", "pause", "", "[]"),
]
METADATA = Metadata([("organization", "o", "{}"), ("user", "u", '{"a":1}')], AUDIT, "ada", "why")
