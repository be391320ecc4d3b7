"""The service's HTML pages and their templates.

Every value in a page is escaped. Characters that can't be shown, bidirectional and control
characters among them, are replaced, so that no text of others changes how a page reads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from aiohttp import web
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from inngest_outbox.console.operations.explain import spoken_duration, spoken_time
from inngest_outbox.observe.printable import printable
from inngest_outbox.web.server.security_headers import page_policy

_LAYOUT = "page.html"
_STYLE = "page.css"
_OWN = Path(__file__).parent


class Pages:
    """Renders pages that load nothing from other sites, each with the style of its folder.

    The templates are those of `folder` and of this one. `filters` are additional ones.
    """

    def __init__(
        self, folder: Path = _OWN, filters: Mapping[str, Callable[..., object]] | None = None
    ) -> None:
        self._style = Markup((folder / _STYLE).read_text("utf-8"))  # noqa: S704
        self._environment = Environment(
            loader=FileSystemLoader([folder, _OWN]),
            autoescape=True,
            auto_reload=False,
            undefined=StrictUndefined,
            finalize=_shown,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters.update(
            duration=spoken_duration,
            exact=exact,
            number="{:,}".format,
            rate="{:,.1f}".format,
            time=spoken_time,
            **(filters or {}),
        )

    def page(self, title: str, content: Markup, *, status: int = 200) -> web.Response:
        """A small page with this content."""
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
        """A page made from a template. `scripts` are those that run in it."""
        text = self.part(template, title=title, style=self._style, **values)
        # A page without a referrer would post its forms with `Origin: null`, as another site does.
        headers = {
            "Content-Security-Policy": page_policy(str(self._style), *scripts, forms=True),
            "Referrer-Policy": "same-origin",
        }
        return web.Response(status=status, text=text, content_type="text/html", headers=headers)

    def part(self, template: str, **values: object) -> str:
        """The HTML of a template."""
        return self._environment.get_template(template).render(**values)


def exact(text: str) -> Markup:
    """`text` for the value of a form's field: escaped, every character kept.

    >>> exact("<\u202e")
    Markup('&lt;\u202e')
    """
    return escape(text)


def _shown(value: object) -> object:
    """The text that a page shows of `value`. None is shown as nothing."""
    if value is None:
        return ""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value
