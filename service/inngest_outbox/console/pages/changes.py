"""Changes from the pages: replay and discard after a dry run, pause and resume with a reason."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web
from multidict import MultiDict

from inngest_outbox.console.operations.actions import Payloads
from inngest_outbox.console.operations.bulk import (
    MAX_ROWS,
    MOST_PER_MINUTE,
    Action,
    Proposal,
    Proposals,
    chosen,
)
from inngest_outbox.console.operations.paced import PacedReplay, PacedReplays
from inngest_outbox.console.pages.desk import Desk, events, read_form, see_other
from inngest_outbox.console.pages.filter_form import PATH, FilterForm, read_number
from inngest_outbox.errors import InvalidFieldError, NotFoundError
from inngest_outbox.outbox.audit import new_act
from inngest_outbox.outbox.clock import wall_now_ms
from inngest_outbox.outbox.model import Filter
from inngest_outbox.outbox.ports import Repairs

_OVERVIEW = "/outbox"
_MAX_REASON_CHARS = 200
_SHOWN = 20


@dataclass(slots=True)
class Changes:
    """The handlers. A search in payloads is in the audit, that of a dry run too."""

    desk: Desk
    proposals: Proposals
    repairs: Repairs
    paced: PacedReplays
    payloads: Payloads

    def routes(self) -> list[web.RouteDef]:
        """The routes to mount."""
        return [
            *(web.post(f"{_OVERVIEW}/{action}", self._changing(action)) for action in Action),
            web.post(f"{_OVERVIEW}/replay/stop", self.stop),
            web.post(f"{_OVERVIEW}/pause", self._pausing(paused=True)),
            web.post(f"{_OVERVIEW}/resume", self._pausing(paused=False)),
        ]

    async def stop(self, request: web.Request) -> web.Response:
        """Stop the replay at a rate."""
        await self.desk.actor(request)
        await read_form(request)
        await self.paced.stop()
        return see_other(f"{_OVERVIEW}?done=stopped")

    def _changing(self, action: Action) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(request: web.Request) -> web.Response:
            actor = await self.desk.actor(request)
            given = await read_form(request)
            form = FilterForm.read(given)
            wanted = _wanted(given, form)
            if wanted.payload_part:
                await self.payloads.searched(actor=actor)
            proposal = await self.proposals.propose(
                action,
                wanted,
                now_ms=wall_now_ms(),
                seen_ms=read_number(given, "seen"),
            )
            is_shown = given.get("confirmed") == "yes" or wanted.ids is not None
            if is_shown and not proposal.rows and not proposal.left_out:
                raise NotFoundError("There is no such event, or it has changed since it was shown.")
            if given.get("confirmed") != "yes":
                return await self._ask(request, actor, proposal, form, given)
            return await self._change(proposal, form, actor, _rate(given))

        return handle

    async def _change(
        self, proposal: Proposal, form: FilterForm, actor: str, per_minute: int | None
    ) -> web.Response:
        act = new_act(chosen(proposal.wanted))
        if per_minute and proposal.action is Action.REPLAY:
            paced = PacedReplay.of(proposal, act, actor=actor, per_minute=per_minute)
            await self.paced.start(paced)
            return see_other(f"{_OVERVIEW}?done=paced")
        done = await self.proposals.carry_out(proposal, act, actor=actor)
        skipped = len(proposal.rows) - len(done)
        action = proposal.action.value
        return see_other(form.address(done=action, count=len(done), skipped=skipped))

    async def _ask(
        self,
        request: web.Request,
        actor: str,
        proposal: Proposal,
        form: FilterForm,
        given: MultiDict[str],
    ) -> web.Response:
        count = len(proposal.rows)
        words = f"{proposal.action.value.capitalize()} {events(count)}?"
        if not count:
            words = f"Nothing to {proposal.action.value}"
        return await self.desk.page(
            request,
            "change.html",
            actor=actor,
            title=words,
            here=PATH,
            proposal=proposal,
            rows=proposal.rows[:_SHOWN],
            ids=given.getall("event", []),
            is_all=given.get("all") == "yes",
            form=form,
            most_per_minute=MOST_PER_MINUTE,
            back=form.address(),
        )

    def _pausing(self, *, paused: bool) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(request: web.Request) -> web.Response:
            actor = await self.desk.actor(request)
            given = await read_form(request)
            if given.get("confirmed") != "yes":
                title = "Pause delivery?" if paused else "Resume delivery?"
                return await self.desk.page(
                    request, "pause.html", actor=actor, title=title, here=_OVERVIEW, paused=paused
                )
            reason = given.get("reason", "").strip()[:_MAX_REASON_CHARS]
            await self.repairs.set_paused(paused=paused, actor=actor, reason=reason)
            return see_other(f"{_OVERVIEW}?done={'paused' if paused else 'resumed'}")

        return handle


def _wanted(given: MultiDict[str], form: FilterForm) -> Filter:
    if given.get("all") == "yes":
        return form.filter(limit=MAX_ROWS)
    ids = tuple(given.getall("event", []))
    if not ids:
        raise NotFoundError("No event was selected.")
    return Filter(ids=ids)


def _rate(given: MultiDict[str]) -> int | None:
    """Events a minute, None for at once. Raises InvalidFieldError."""
    per_minute = read_number(given, "perMinute")
    if per_minute is not None and not 1 <= per_minute <= MOST_PER_MINUTE:
        raise InvalidFieldError(f"A rate is between 1 and {MOST_PER_MINUTE:,} a minute.")
    return per_minute
