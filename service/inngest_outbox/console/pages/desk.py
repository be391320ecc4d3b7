"""The common parts of the operators' pages: access, frame, style and script.

The style and the script are inline and named by digest in each page's policy, so that nothing else
runs there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import hdrs, web
from markupsafe import Markup
from multidict import MultiDict

from inngest_outbox.console.operations.explain import counted
from inngest_outbox.console.operations.paced import PacedReplays
from inngest_outbox.console.operations.views import delivery_view
from inngest_outbox.console.pages.filter_form import read_number
from inngest_outbox.identity.user import Operators, User
from inngest_outbox.observe.printable import printable
from inngest_outbox.outbox.figures import GROUPED_ROWS, DeadGroup
from inngest_outbox.outbox.model import Row
from inngest_outbox.outbox.ports import Inspector
from inngest_outbox.web.pages.page import Pages
from inngest_outbox.web.server.body import read_body

MAX_FORM_BYTES = 256 * 1024
_FOLDER = Path(__file__).parent / "templates"
_CODE = Markup("<code>{}</code>")
_DONE = {
    "paused": "Delivery was paused. Posts are still accepted.",
    "resumed": "Delivery was resumed.",
    "stopped": "The replay has ended. What it had not reached stayed dead.",
    "paced": "The replay has begun. Until its end each page shows how far it is.",
}
_CHANGED = {"replay": "Replayed", "discard": "Discarded"}


class Desk:
    """Lets operators in, and puts what a page shows into the frame of all pages."""

    def __init__(
        self,
        user_of: Callable[[web.Request], Awaitable[User]],
        operators: Operators,
        inspector: Inspector,
        paced: PacedReplays,
    ) -> None:
        self._user_of = user_of
        self._operators = operators
        self._inspector = inspector
        self._paced = paced
        self._pages = Pages(_FOLDER, _FILTERS)
        self._script = (_FOLDER / "page.js").read_text(encoding="utf-8")
        self.part = self._pages.part

    async def actor(self, request: web.Request) -> str:
        """The operator's name for the audit.

        Raises what `user_of` raises, and OperatorRequiredError.
        """
        user = await self._user_of(request)
        self._operators.require(user)
        return user.email or user.id

    async def page(
        self,
        request: web.Request,
        template: str,
        *,
        actor: str,
        title: str,
        here: str,
        **values: Any,
    ) -> web.Response:
        """The page for the operator `actor`. `here` is the path of its entry in the navigation.

        Raises OutboxUnavailableError, and InvalidFieldError for an address that is not ours.
        """
        return self._pages.render(
            template,
            title,
            scripts=[self._script],
            script=Markup(self._script),  # noqa: S704
            here=here,
            actor=actor,
            delivery=delivery_view(await self._inspector.load_delivery()),
            paced=await self._paced.current(),
            notice=notice_of(request.query),
            **values,
        )

    async def dead_groups(self, shown: int) -> dict[str, object]:
        """The values of the part `dead_groups.html`: the largest groups, at most `shown`.

        Raises OutboxUnavailableError.
        """
        return groups_shown(await self._inspector.dead_groups(GROUPED_ROWS), shown)


def groups_shown(groups: Sequence[DeadGroup], shown: int) -> dict[str, object]:
    """The values of the part `dead_groups.html`, of groups of GROUPED_ROWS."""
    return {
        "groups": groups[:shown],
        "more_groups": max(0, len(groups) - shown),
        "grouped_rows": GROUPED_ROWS,
        "is_part": sum(one.rows for one in groups) >= GROUPED_ROWS,
    }


async def read_form(request: web.Request) -> MultiDict[str]:
    """The fields of a posted form. Raises what `read_body` raises."""
    body = await read_body(request, max_bytes=MAX_FORM_BYTES)
    return MultiDict(parse_qsl(body.decode(errors="replace")))


def see_other(path: str) -> web.Response:
    """An answer that leads the browser to another page by GET."""
    return web.Response(status=303, headers={hdrs.LOCATION: path})


def notice_of(query: Mapping[str, str]) -> str:
    """A sentence about the last change, from an address's query. Raises InvalidFieldError."""
    action = query.get("done", "")
    if action not in _CHANGED:
        return _DONE.get(action, "")
    count, skipped = read_number(query, "count") or 0, read_number(query, "skipped") or 0
    then = " They go out again under their ids." if action == "replay" and count else ""
    rest = f" {events(skipped)} had changed meanwhile: left alone." if skipped else ""
    return f"{_CHANGED[action]} {events(count)}.{then}{rest}"


def events(count: int) -> str:
    """A number of events in words.

    >>> events(1), events(1200)
    ('1 event', '1,200 events')
    """
    return counted(count, "event")


def gist(row: Row) -> str:
    """The words that a list shows of a row beside its state and reason.

    The last note tells why a row waits.
    """
    if row.detail:
        return row.detail
    sends = f"{row.sends} sends" if row.sends > 1 else ""
    note = row.history[-1].note if row.history else ""
    removed = "" if row.has_payload else "payload removed"
    return ", ".join(filter(None, (note, sends, removed)))


def code(text: str) -> Markup:
    """A sentence whose parts in backticks are code.

    >>> code("run `outbox resume` <now>")
    Markup('run <code>outbox resume</code> &lt;now&gt;')
    """
    parts = enumerate(printable(text).split("`"))
    return Markup().join(_CODE.format(part) if at % 2 else part for at, part in parts)


def iso(at_ms: int) -> str:
    """A time for programs.

    >>> iso(1795559419447)
    '2026-11-24T22:30:19Z'
    """
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


_FILTERS: Mapping[str, Callable[..., object]] = {
    "code": code,
    "counted": counted,
    "events": events,
    "gist": gist,
    "iso": iso,
}
