"""Rows for people: one line each where there is room, else two, so that the reason is readable."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from service.console.operations.explain import spoken_time
from service.console.operations.views import RowView
from service.console.terminal.tables import age, plain, state_text

_WIDE = 140
_INDENT = (0, 0, 0, 2)


def row_list(views: Sequence[RowView], now_ms: int, width: int) -> RenderableType:
    """The rows, on a screen of `width` columns. A pipe is wide: each row is one line there."""
    if width >= _WIDE:
        return _table(views, now_ms)
    return Group(*_narrow(views, now_ms))


def _table(views: Sequence[RowView], now_ms: int) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("ID", "STATE", "ATTEMPTS", "AGE", "USER", "NAME", "REASON"):
        table.add_column(heading, no_wrap=heading in ("ID", "STATE"))
    for view in views:
        table.add_row(
            plain(view.id),
            state_text(view.state),
            str(view.attempts),
            _age(view, now_ms),
            plain(view.user_id),
            plain(view.name),
            plain(_reason(view)),
        )
    return table


def _narrow(views: Sequence[RowView], now_ms: int) -> Iterator[RenderableType]:
    columns = max(len(view.id) for view in views)
    heading = f"{'ID':{columns}}  {'STATE':10}  {'AGE':8}  USER, NAME; REASON"
    yield Text(heading, style="bold", no_wrap=True, overflow="ellipsis")
    for view in views:
        line = Text(no_wrap=True, overflow="ellipsis")
        line.append_text(plain(f"{view.id:{columns}}"))
        line.append("  ")
        line.append_text(state_text(view.state, width=10))
        line.append(f"  {_age(view, now_ms):8}  ")
        line.append_text(plain(view.user_id))
        yield line
        yield Padding(plain("; ".join(one for one in (view.name, _reason(view)) if one)), _INDENT)


def _reason(view: RowView) -> str:
    """The reason with what was said; only the reason where both are the same."""
    words = [one for one in (view.reason, view.detail) if one]
    return ": ".join(words) or ("" if view.payload_bytes else "payload removed")


def _age(view: RowView, now_ms: int) -> str:
    return age(max(0, now_ms - view.accepted_at) / 1000)


def searched_to(at_ms: int, rest: str) -> str:
    """A sentence about a search that has not ended; `rest` says how it continues.

    >>> searched_to(1795559419447, "12 rows found")
    'Searched back to rows of 2026-11-24 22:30:19 UTC; 12 rows found.'
    """
    return f"Searched back to rows of {spoken_time(at_ms)}; {rest}."
