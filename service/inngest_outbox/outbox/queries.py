"""The SQL of a store: named statements in `.sql` files beside its code.

A statement begins with `-- name: NAME` and a comment for its reader, and ends at the next name.
Loading substitutes the schema's name, and nothing else.
"""

from __future__ import annotations

import re
from pathlib import Path

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)
_COMMENT = re.compile(r"^--.*\n?", re.MULTILINE)


class Queries(dict[str, str]):
    """The statements in `folder`, which is read at the first look-up; before it there are none.

    >>> Queries(Path(__file__).parent / "sqlite" / "queries")["NOT_THERE"]
    Traceback (most recent call last):
    ...
    KeyError: 'NOT_THERE'
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def __missing__(self, name: str) -> str:
        found = read_queries(self._folder)
        self.update(found | self)
        return found[name]


def read_queries(folder: Path) -> dict[str, str]:
    """The statements of all `.sql` files in `folder` by their names."""
    texts: dict[str, str] = {}
    for path in sorted(folder.glob("*.sql")):
        for name, text in statements(path.read_text()).items():
            if texts.setdefault(name, text) is not text:
                raise ValueError(f"{path.name} has a second statement {name}")
    return texts


def statements(text: str) -> dict[str, str]:
    r"""The statements of one file by their names.

    The comments before a statement go; its name stays as a comment, so that it shows in
    `pg_stat_statements`.

    >>> statements("-- name: ONE\n-- It is 1.\nSELECT 1\n\n-- name: TWO\nSELECT 2")
    {'ONE': '/* ONE */ SELECT 1', 'TWO': '/* TWO */ SELECT 2'}
    """
    _, *parts = _NAME.split(text)
    return {
        name: f"/* {name} */ {_COMMENT.sub('', body).strip()}"
        for name, body in zip(parts[::2], parts[1::2], strict=True)
    }
