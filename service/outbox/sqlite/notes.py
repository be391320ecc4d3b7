"""Notes on rows and on operators: the history of a row, and the audit."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from service.outbox.audit import Act, ids_text
from service.outbox.clock import wall_now_ms
from service.outbox.model import MAX_NOTES

AUDIT = """
INSERT INTO outbox_audit (at_ms, actor, action, detail) VALUES (:now, :actor, :action, :detail)
"""
AUDIT_ROWS = """
INSERT INTO outbox_audit (act, at_ms, actor, action, detail, ids)
VALUES (:act, :now, :actor, :action, :detail, :ids)
"""


def noted(now: str, note: str) -> str:
    """The SQL expression for a history with one note more; at its limit the oldest note goes.

    `now` and `note` are SQL expressions.
    """
    return f"""json_insert(
           CASE WHEN history IS NULL OR NOT json_valid(history) THEN '[]'
                WHEN json_array_length(history) < {MAX_NOTES} THEN history
                ELSE json_remove(history, '$[0]') END,
           '$[#]', json_object('at', {now}, 'note', {note}))"""


def write_audit(connection: sqlite3.Connection, actor: str, action: str, detail: str) -> None:
    """Add to the operator actions, in the transaction of the action."""
    values = {"now": wall_now_ms(), "actor": actor, "action": action, "detail": detail}
    connection.execute(AUDIT, values)


def audit_rows(
    connection: sqlite3.Connection, actor: str, action: str, act: Act, ids: Sequence[str]
) -> None:
    """Add a change of these events to the operator actions, in the transaction of the change."""
    values = {"act": act.id, "now": wall_now_ms(), "actor": actor, "action": action}
    connection.execute(AUDIT_ROWS, {**values, "detail": act.chosen, "ids": ids_text(ids)})
