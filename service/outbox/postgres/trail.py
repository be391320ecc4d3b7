"""Acts that have one row in the audit of an outbox on PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence

from service.outbox.audit import ids_text, new_act
from service.outbox.postgres.pool import PostgresPool
from service.outbox.postgres.rows import NOW_MS

# Safe to repeat: an act has one row.
AUDITED_ACT = f"""
INSERT INTO outbox_audit (act, at_ms, actor, action, detail, ids)
SELECT %(act)s, {NOW_MS}, %(actor)s, %(action)s, %(detail)s, %(ids)s
WHERE NOT EXISTS (SELECT FROM outbox_audit WHERE act = %(act)s)
"""


def audited(
    action: str, *, actor: str, detail: str, event_ids: Sequence[str] = ()
) -> dict[str, str]:
    """The values of AUDITED_ACT for a new act."""
    ids = ids_text(event_ids)
    act = new_act(detail).id
    return {"act": act, "actor": actor, "action": action, "detail": detail, "ids": ids}


class PostgresTrail:
    """Writes acts that change no row."""

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool

    async def record(self, action: str, *, actor: str, event_id: str, detail: str) -> None:
        """Add an act about one event to the audit. Raises OutboxUnavailableError."""
        given = audited(action, actor=actor, detail=detail, event_ids=[event_id])
        await self._pool.run(AUDITED_ACT, given)
