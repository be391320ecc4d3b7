"""An outbox of rows in a list, to read from: fast, and its rows may appear in any order."""

from __future__ import annotations

from collections.abc import Iterable

from inngest_outbox.outbox.model import Filter, Reach, Row, State


class ListedOutbox:
    """The parts that a person reads, over `rows`.

    `asked` are the filters of the looks, `windows` the numbers that each is between.
    """

    def __init__(self, rows: Iterable[Row]) -> None:
        self.rows_in_it = list(rows)
        self.asked: list[Filter] = []
        self.inspector = self.positions = self

    async def rows(self, wanted: Filter) -> list[Row]:
        self.asked.append(wanted)
        return self._below(wanted.before_seq, wanted)[: wanted.limit]

    async def reach(
        self,
        state: State | None,
        window: int,
        before_seq: int | None = None,
        owner: str | None = None,
    ) -> Reach | None:
        rows = self._below(before_seq, Filter(state=state, owner=owner))
        last = rows[window - 1] if len(rows) >= window else None
        return last and Reach(last.seq, last.accepted_at_ms, len(rows) == window)

    async def seq_at(self, at_ms: int) -> int:
        later = [row.seq for row in self.rows_in_it if row.accepted_at_ms >= at_ms]
        return min(later, default=2**62)

    async def count(self, wanted: Filter) -> int:
        return len(await self.rows(wanted))

    @property
    def windows(self) -> list[tuple[int | None, int | None]]:
        return [(one.before_seq, one.after_seq) for one in self.asked]

    def _below(self, before_seq: int | None, wanted: Filter) -> list[Row]:
        found = [
            row
            for row in self.rows_in_it
            if (before_seq is None or row.seq < before_seq)
            and (wanted.after_seq is None or row.seq > wanted.after_seq)
            and (wanted.ids is None or row.id in wanted.ids)
            and row.accepted_at_ms >= (wanted.since_ms or 0)
            and wanted.state in (None, row.state)
            and row.id.startswith(wanted.id_prefix or "")
            and wanted.owner in (None, row.owner)
            and wanted.user_id in (None, row.user_id)
        ]
        return sorted(found, key=lambda row: -row.seq)
