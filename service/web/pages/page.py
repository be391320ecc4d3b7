"""The layout of the service's small pages: no scripts, nothing from other sites."""

from __future__ import annotations

import html
from importlib import resources
from string import Template

from aiohttp import web

from service.web.security_headers import page_policy

_LAYOUT = "page.html"
_STYLE = "page.css"


class Pages:
    """Lays pages out."""

    def __init__(self) -> None:
        style = _read(_STYLE)
        self._layout = Template(_read(_LAYOUT))
        self._style = style
        self._headers = {"Content-Security-Policy": page_policy(style, forms=True)}

    def page(self, title: str, content: str, *, status: int = 200) -> web.Response:
        """A page. `content` is HTML, `title` is text."""
        text = self._layout.substitute(title=html.escape(title), content=content, style=self._style)
        return web.Response(
            status=status, text=text, content_type="text/html", headers=self._headers
        )


def template(name: str) -> Template:
    """A template of this folder."""
    return Template(_read(name))


def _read(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")
