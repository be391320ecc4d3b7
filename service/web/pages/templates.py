"""The service's HTML templates.

Every value in a page is escaped. Characters that can't be shown, bidirectional and control
characters among them, are replaced, so that no text of others changes how a page reads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup, escape

from service.console.operations.explain import spoken_duration, spoken_time
from service.observe.printable import printable

_SHARED = Path(__file__).parent


class Templates:
    """The templates of `folders`, and those of this folder.

    `filters` are additional ones.
    """

    def __init__(
        self, *folders: Path, filters: Mapping[str, Callable[..., object]] | None = None
    ) -> None:
        self._environment = Environment(
            loader=FileSystemLoader([*folders, _SHARED]),
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

    def get(self, name: str) -> Template:
        """The template with this file name."""
        return self._environment.get_template(name)


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
