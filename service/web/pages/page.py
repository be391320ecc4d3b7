"""The layout of the service's small pages: nothing from other sites."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources

from aiohttp import web
from markupsafe import Markup

from service.web.pages.templates import Templates
from service.web.server.security_headers import page_policy

_LAYOUT = "page.html"
_STYLE = "page.css"


class Pages:
    """Lays pages out."""

    def __init__(self) -> None:
        style = resources.files(__package__).joinpath(_STYLE).read_text("utf-8")
        self._templates = Templates()
        self._style = Markup(style)  # noqa: S704

    def page(self, title: str, content: Markup, *, status: int = 200) -> web.Response:
        """A page with this content."""
        return self.render(_LAYOUT, title, status=status, content=content)

    def render(
        self,
        template: str,
        title: str,
        *,
        status: int = 200,
        scripts: Sequence[str] = (),
        **values: object,
    ) -> web.Response:
        """A page made from a template of this folder. `scripts` are those that run in it."""
        text = self._templates.get(template).render(title=title, style=self._style, **values)
        # A page without a referrer would post its forms with `Origin: null`, as another site does.
        headers = {
            "Content-Security-Policy": page_policy(str(self._style), *scripts, forms=True),
            "Referrer-Policy": "same-origin",
        }
        return web.Response(status=status, text=text, content_type="text/html", headers=headers)
