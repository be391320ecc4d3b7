"""The lists: events by state, searched and filtered; event names; what operators did."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec
from aiohttp import hdrs, web

from inngest_outbox.console.operations.actions import Payloads
from inngest_outbox.console.operations.bulk import MAX_ROWS, Action, actions_on
from inngest_outbox.console.operations.explain import explain_name, spoken_duration
from inngest_outbox.console.operations.search import Found, Search
from inngest_outbox.console.operations.views import row_view
from inngest_outbox.console.pages.desk import Desk, groups_shown, iso
from inngest_outbox.console.pages.filter_form import PATH, FilterForm, read_number
from inngest_outbox.identity.scopes import Scopes
from inngest_outbox.outbox.figures import GROUPED_ROWS, Stats
from inngest_outbox.outbox.model import Row, State
from inngest_outbox.outbox.ports import Inspector
from inngest_outbox.runs.figures import load_names

NAMES, AUDIT = "/outbox/names", "/outbox/audit"
PAGE_ROWS = 50
_SUGGESTED_ROWS = 2_000
_GROUPS_SHOWN = 50
_ACTS, _MOST_ACTS, _IDS_SHOWN = 50, 1_000, 200
_COLUMNS = ("id", "name", "user", "state", "attempts", "accepted", "settled", "reason", "detail")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(slots=True)
class Lists:
    """The handlers."""

    desk: Desk
    inspector: Inspector
    search: Search
    exported: Search
    payloads: Payloads
    scopes: Scopes

    def routes(self) -> list[web.RouteDef]:
        """The routes to mount."""
        return [
            web.get(PATH, self.events),
            web.get("/outbox/export", self.export),
            web.get(NAMES, self.names),
            web.get(AUDIT, self.audit),
        ]

    async def events(self, request: web.Request) -> web.Response:
        """A page of events. A search in payloads is in the audit."""
        actor = await self.desk.actor(request)
        form = FilterForm.read(request.query)
        before = read_number(request.query, "before")
        found = await self._found(self.search, form, actor, PAGE_ROWS, before)
        stats = await self.inspector.stats()
        known = await load_names(self.scopes)
        is_dead_list = form.state == State.DEAD and not form.is_filtering and before is None
        groups = await self.inspector.dead_groups(GROUPED_ROWS if is_dead_list else _SUGGESTED_ROWS)
        return await self.desk.page(
            request,
            "events.html",
            actor=actor,
            title=f"{form.state or 'all'} events".capitalize(),
            here=PATH,
            form=form,
            counts=_counts(stats),
            rows=found.rows,
            found=found,
            known_names=sorted({one.name for one in groups} | {one.name for one in known.names}),
            known_reasons=sorted({one.reason for one in groups}),
            is_first=before is None,
            older=form.query(before=found.next_seq) if found.next_seq else None,
            actions=actions_on(State(form.state)) if form.state else list(Action),
            **groups_shown(groups, _GROUPS_SHOWN if is_dead_list else 0),
        )

    async def export(self, request: web.Request) -> web.Response:
        """The newest events that match, as CSV or JSON, without payloads.

        The file is named a part where there are more than 10,000, or the search took too long.
        """
        actor = await self.desk.actor(request)
        form = FilterForm.read(request.query)
        found = await self._found(self.exported, form, actor, MAX_ROWS, None)
        kind = "json" if request.query.get("as") == "json" else "csv"
        written = _json if kind == "json" else _csv
        body = await asyncio.to_thread(written, found.rows)  # it would hold up posts
        part = "-part" if found.next_seq is not None or found.is_cut else ""
        name = f'attachment; filename="events-{form.state or "all"}{part}.{kind}"'
        return web.Response(
            body=body,
            content_type="application/json" if kind == "json" else "text/csv",
            charset="utf-8",
            headers={hdrs.CONTENT_DISPOSITION: name},
        )

    async def names(self, request: web.Request) -> web.Response:
        """The names, those that miss their runs first."""
        actor = await self.desk.actor(request)
        kept = await load_names(self.scopes)
        delivery = await self.inspector.load_delivery()
        names = sorted(kept.names, key=lambda one: (one.no_run_since is None, one.name))
        return await self.desk.page(
            request,
            "names.html",
            actor=actor,
            title="Names",
            here=NAMES,
            kept=kept,
            names=[
                (one, explain_name(one.name, one, delivery, serving=True, commands=False))
                for one in names
            ],
            spoken=_spoken,
        )

    async def audit(self, request: web.Request) -> web.Response:
        """The latest acts; with `event`, those that changed an event whose id begins with it."""
        actor = await self.desk.actor(request)
        event = request.query.get("event", "").strip()
        limit = min(_MOST_ACTS, read_number(request.query, "limit") or _ACTS)
        acts = await self.inspector.audit(limit + 1, event=event or None)
        has_more = len(acts) > limit < _MOST_ACTS
        return await self.desk.page(
            request,
            "audit.html",
            actor=actor,
            title="Audit",
            here=AUDIT,
            acts=acts[:limit],
            event=event,
            ids_shown=_IDS_SHOWN,
            more=min(_MOST_ACTS, limit * 2) if has_more else None,
        )

    async def _found(
        self, search: Search, form: FilterForm, actor: str, limit: int, before: int | None
    ) -> Found:
        if form.payload:
            await self.payloads.searched(actor=actor)
        return await search.find(form.filter(limit=limit, before_seq=before))


def _counts(stats: Stats) -> list[tuple[str, int]]:
    counts = [(state.value, int(getattr(stats, state.value))) for state in State]
    return [("", sum(count for _, count in counts)), *counts]


def _spoken(median: float | None, p95: float | None) -> str:
    if median is None or p95 is None:
        return ""
    return f"{spoken_duration(median)} ({spoken_duration(p95)})"


def _json(rows: Sequence[Row]) -> bytes:
    return msgspec.json.encode([row_view(row) for row in rows])


def _csv(rows: Sequence[Row]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(_COLUMNS)
    writer.writerows(map(_cells, rows))
    return text.getvalue().encode()


def _cells(row: Row) -> Iterator[object]:
    """The cells of a row. A text that a spreadsheet would run as a formula begins with a quote."""
    for value in (
        row.id,
        row.name,
        row.user_id,
        row.state.value,
        row.attempts,
        iso(row.accepted_at_ms),
        iso(row.settled_at_ms) if row.settled_at_ms else "",
        row.reason or "",
        row.detail or "",
    ):
        yield f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
