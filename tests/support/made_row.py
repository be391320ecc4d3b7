"""A row without a store: one that waits, but for what a test changes."""

from __future__ import annotations

import msgspec

from inngest_outbox.outbox.model import Row, State

ACCEPTED_MS = 1_795_559_419_447
_WAITING = Row(
    id="e-1",
    name="documents/aws.index",
    owner="dev u-1",
    user_id="u-1",
    state=State.PENDING,
    attempts=0,
    sends=0,
    isolated=False,
    accepted_at_ms=ACCEPTED_MS,
    first_sent_at_ms=None,
    settled_at_ms=None,
    due_in_seconds=0.0,
    lease_in_seconds=None,
    reason=None,
    detail=None,
    history=(),
    payload_bytes=200,
)


def made_row(state: State = State.PENDING, **changes: object) -> Row:
    due = {} if state is State.PENDING else {"due_in_seconds": None}
    return msgspec.structs.replace(_WAITING, state=state, **{**due, **changes})
