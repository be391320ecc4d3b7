"""The lists of events: by state, searched and filtered, a page at a time."""

from __future__ import annotations

from aiohttp import web

from service.console.operations.changing.proposals import STATES, Action
from service.console.operations.search import Search
from service.console.operations.views import delivery_view
from service.console.pages.access import OperatorAccess
from service.console.pages.event_page import PATH
from service.console.pages.filter_form import FilterForm, read_number
from service.console.pages.notices import notice_of
from service.console.pages.renderer import Renderer
from service.outbox.figures import Stats
from service.outbox.model import State
from service.outbox.ports import Inspector

PAGE_ROWS = 50


class EventList:
    """The handler."""

    def __init__(
        self, inspector: Inspector, search: Search, access: OperatorAccess, renderer: Renderer
    ) -> None:
        self._inspector = inspector
        self._search = search
        self._access = access
        self._renderer = renderer

    def routes(self) -> list[web.RouteDef]:
        """The routes to mount."""
        return [web.get(PATH, self.show)]

    async def show(self, request: web.Request) -> web.Response:
        """A page of the list."""
        await self._access.actor(request)
        form = FilterForm.read(request.query)
        before = read_number(request.query, "before")
        found = await self._search.find(form.filter(limit=PAGE_ROWS, before_seq=before))
        stats = await self._inspector.stats()
        return self._renderer.page(
            "events.html",
            title=f"{form.state or 'all'} events".capitalize(),
            here=PATH,
            notice=notice_of(request.query),
            delivery=delivery_view(stats.delivery) if stats.delivery else None,
            form=form,
            counts=_counts(stats),
            rows=found.rows,
            found=found,
            is_first=before is None,
            older=form.query(before=found.next_seq) if found.next_seq else None,
            actions=[action for action in Action if _allows(action, form.state)],
        )


def _counts(stats: Stats) -> list[tuple[str, int]]:
    counts = [(state.value, int(getattr(stats, state.value))) for state in State]
    return [("", sum(count for _, count in counts)), *counts]


def _allows(action: Action, state: str) -> bool:
    return not state or State(state) in STATES[action]
