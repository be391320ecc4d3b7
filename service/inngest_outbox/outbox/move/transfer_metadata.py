"""The records that a move reads beside the events, in SQL that both dialects understand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from inngest_outbox.outbox.move.transfer import Metadata

SCOPES = "SELECT scope, scope_id, settings FROM outbox_settings ORDER BY scope, scope_id"
AUDIT = """
SELECT act, at_ms, actor, action, detail, ids FROM outbox_audit WHERE action <> 'move' ORDER BY id
"""
PAUSED = "SELECT paused_by, pause_reason FROM outbox_delivery"
MOVES = "SELECT detail FROM outbox_audit WHERE action = 'move' ORDER BY id"


def read_metadata(execute: Callable[[str], Any]) -> Metadata:
    """The values of scopes, the audit and the pause. `execute` returns a cursor."""
    scopes, audit = execute(SCOPES).fetchall(), execute(AUDIT).fetchall()
    [(paused_by, pause_reason)] = execute(PAUSED).fetchall()
    return Metadata(scopes, audit, paused_by, pause_reason)


def read_moves(execute: Callable[[str], Any]) -> list[str]:
    """The details of the moves into the outbox, oldest first. `execute` returns a cursor."""
    return [detail for (detail,) in execute(MOVES).fetchall()]
