"""Naming the rows of a change: commands find them first, too."""

from __future__ import annotations

from inngest_outbox.outbox.model import Filter, Named
from inngest_outbox.outbox.ports import Inspector


async def named(inspector: Inspector, wanted: Filter | None = None) -> Named:
    """The rows that match, all without a filter, by their ids."""
    chosen = wanted or Filter(limit=10_000)
    rows = await inspector.rows(chosen)
    return Named(tuple(row.id for row in rows), chosen.state, chosen.owner, chosen.never_sent)
