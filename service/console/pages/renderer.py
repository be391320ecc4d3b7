"""The operators' pages as HTML: their templates, style and script.

The style and the script are inline and named by digest in each page's policy, so that nothing else
runs there.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from aiohttp import web
from markupsafe import Markup

from service.console.pages.notices import events
from service.observe.printable import printable
from service.outbox.model import Row
from service.web.pages.templates import Templates
from service.web.server.security_headers import page_policy

_FOLDER = Path(__file__).parent
_CODE = Markup("<code>{}</code>")


class Renderer:
    """Renders pages and parts of them."""

    def __init__(self) -> None:
        style = (_FOLDER / "page.css").read_text(encoding="utf-8")
        script = (_FOLDER / "page.js").read_text(encoding="utf-8")
        self._templates = Templates(
            _FOLDER,
            filters={"code": code, "events": events, "gist": gist, "iso": iso, "size": size},
        )
        self._shell = {"style": Markup(style), "script": Markup(script)}  # noqa: S704
        # A page without a referrer would post its forms with `Origin: null`, as another site does.
        self._headers = {
            "Content-Security-Policy": page_policy(script, style, forms=True),
            "Referrer-Policy": "same-origin",
        }

    def page(
        self,
        template: str,
        *,
        title: str,
        here: str = "",
        notice: str = "",
        delivery: object = None,
        **values: object,
    ) -> web.Response:
        """A whole page. `here` is the path of its entry in the navigation."""
        text = self.part(
            template,
            title=title,
            here=here,
            notice=notice,
            delivery=delivery,
            **self._shell,
            **values,
        )
        return web.Response(text=text, content_type="text/html", headers=self._headers)

    def part(self, template: str, **values: object) -> str:
        """The HTML of a template."""
        return self._templates.get(template).render(**values)


def gist(row: Row) -> str:
    """The words that a list shows of a row beside its state and reason.

    The last note tells why a row waits.
    """
    if row.detail:
        return row.detail
    sends = f"{row.sends} sends" if row.sends > 1 else ""
    note = str(row.history[-1].get("note")) if row.history else ""
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


def size(size_bytes: int | None) -> str:
    """A size for people.

    >>> size(3 * 1024**2)
    '3.0 MiB'
    """
    return "not known" if size_bytes is None else f"{size_bytes / 1_048_576:,.1f} MiB"
