"""Finding events by their ids or by how their ids begin."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from service.outbox.model import Filter, Row
from service.outbox.ports import Inspector
from service.outbox.row_lookup import find_by_ulid

MAX_CANDIDATES = 10


class FoundIds(msgspec.Struct, frozen=True, gc=False):
    """The meaning of given ids. `rows` are the events, in the order in which they were given.

    `unknown` are those that no event's id begins with. `ambiguous` are those that more than one id
    begins with, each with its newest events: at most 11, where 11 stands for "more than 10".
    """

    rows: tuple[Row, ...]
    unknown: tuple[str, ...]
    ambiguous: tuple[tuple[str, tuple[Row, ...]], ...]


async def find_ids(inspector: Inspector, given: Sequence[str]) -> FoundIds:
    """The events that these ids, beginnings of ids, or ids in Inngest name.

    A whole id names only itself.
    """
    whole = await inspector.rows(Filter(ids=tuple(given), limit=len(given)))
    known = {row.id: row for row in whole}
    rows: dict[str, Row] = {}
    unknown: list[str] = []
    ambiguous: list[tuple[str, tuple[Row, ...]]] = []
    for one in dict.fromkeys(given):
        found = [known[one]] if one in known else await _beginning_with(inspector, one)
        if not found:
            unknown.append(one)
        elif len(found) > 1:
            ambiguous.append((one, tuple(found)))
        else:
            rows[found[0].id] = found[0]
    return FoundIds(tuple(rows.values()), tuple(unknown), tuple(ambiguous))


async def _beginning_with(inspector: Inspector, prefix: str) -> list[Row]:
    found = await inspector.rows(Filter(id_prefix=prefix, limit=MAX_CANDIDATES + 1))
    in_inngest = None if found else await find_by_ulid(inspector, prefix)
    return [in_inngest] if in_inngest else found
