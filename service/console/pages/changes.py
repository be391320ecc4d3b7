"""Replay and discard from the pages: a dry run first, then the change."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web
from multidict import MultiDict

from service.console.operations.changing.proposals import (
    MAX_ROWS,
    Action,
    Proposal,
    Proposals,
    chosen,
)
from service.console.pages.access import OperatorAccess, read_form, see_other
from service.console.pages.event_page import PATH
from service.console.pages.filter_form import FilterForm, read_number
from service.console.pages.notices import events
from service.console.pages.renderer import Renderer
from service.errors import NotFoundError
from service.outbox.audit import new_act
from service.outbox.clock import wall_now_ms
from service.outbox.model import Filter

_SHOWN = 20


class Changes:
    """The handlers of the pages."""

    def __init__(self, proposals: Proposals, access: OperatorAccess, renderer: Renderer) -> None:
        self._proposals = proposals
        self._access = access
        self._renderer = renderer

    def routes(self) -> list[web.RouteDef]:
        """The routes to mount."""
        return [web.post(f"/outbox/{action}", self._handler(action)) for action in Action]

    def _handler(self, action: Action) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(request: web.Request) -> web.Response:
            actor = await self._access.actor(request)
            given = await read_form(request)
            form = FilterForm.read(given)
            proposal = await self._proposals.propose(
                action,
                _wanted(given, form),
                now_ms=wall_now_ms(),
                seen_ms=read_number(given, "seen"),
            )
            if not proposal.rows and not proposal.left_out:
                raise NotFoundError("There is no such event, or it has changed since it was shown.")
            if given.get("confirmed") != "yes":
                return self._ask(proposal, form, given)
            act = new_act(chosen(proposal.wanted))
            done = await self._proposals.carry_out(proposal, act, actor=actor)
            skipped = len(proposal.rows) - len(done)
            query = form.query(done=action.value, count=len(done), skipped=skipped or None)
            return see_other(f"{PATH}?{query}")

        return handle

    def _ask(self, proposal: Proposal, form: FilterForm, given: MultiDict[str]) -> web.Response:
        count = len(proposal.rows)
        words = f"{proposal.action.value.capitalize()} {events(count)}?"
        if not count:
            words = f"Nothing to {proposal.action.value}"
        return self._renderer.page(
            "change.html",
            title=words,
            here=PATH,
            proposal=proposal,
            rows=proposal.rows[:_SHOWN],
            ids=given.getall("event", []),
            is_all=given.get("all") == "yes",
            form=form,
            back=f"{PATH}?{form.query()}",
        )


def _wanted(given: MultiDict[str], form: FilterForm) -> Filter:
    if given.get("all") == "yes":
        return form.filter(limit=MAX_ROWS)
    ids = tuple(given.getall("event", []))
    if not ids:
        raise NotFoundError("No event was selected.")
    return Filter(ids=ids)
