"""The calls that wait to be stored, and which of them share a statement."""

from __future__ import annotations

from collections import deque

from service.outbox.postgres.appends import Append

MAX_EVENTS = 1000
MAX_BYTES = 8 * 1024 * 1024


class WaitingAppends(deque[Append]):
    """Calls in the order of their arrival."""

    def take(self) -> list[Append]:
        """The calls for one statement, without cancelled ones.

        No call is divided. When a call is stored together or not at all, no other call of the
        statement uses its keys.
        """
        batch: list[Append] = []
        names: set[tuple[str, str]] = set()
        numbered: set[tuple[str, str]] = set()
        rows = size = 0
        while self:
            item = self[0]
            mine = item.names
            is_apart = not mine.isdisjoint(names if item.has_number else numbered)
            if not item.done.done():
                if batch and (is_apart or _is_too_much(item, rows, size)):
                    break
                batch.append(item)
                names |= mine
                numbered |= mine if item.has_number else set()
                rows += len(item.events)
                size += item.payload_bytes
            self.popleft()
        return batch


def _is_too_much(item: Append, rows: int, size: int) -> bool:
    return rows + len(item.events) > MAX_EVENTS or size + item.payload_bytes > MAX_BYTES
