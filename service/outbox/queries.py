"""The SQL of a store: named statements in `.sql` files beside its code, and filters.

A statement begins with `-- name: NAME` and a comment for its reader, and ends at the next name. It
is never put together from parts; loading substitutes the schema's name, and nothing else. A filter
gives the conditions of the rows that it wants, the same in both dialects; a store adds where it
looks for them: by their ids, by an owner, or in the table of a state.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from service.outbox.model import Filter

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


_HIGHEST_CHARACTER = "\U0010ffff"
_COMPARED = (
    ("owner", "owner", "="),
    ("user_id", "user_id", "="),
    ("name", "name", "="),
    ("reason", "reason", "="),
    ("since_ms", "accepted_at_ms", ">="),
    ("until_ms", "accepted_at_ms", "<"),
    ("before_seq", "seq", "<"),
    ("after_seq", "seq", ">"),
)
_CONTAINED = (("user_part", "user_id"), ("name_part", "name"), ("reason_part", "reason"))


class Way(enum.Enum):
    """The index by which the rows of a filter are found."""

    IDS = enum.auto()
    ALIAS = enum.auto()
    OWNER = enum.auto()
    PREFIX = enum.auto()
    STATE = enum.auto()
    ALL = enum.auto()


class Dialect(NamedTuple):
    """A store's way to write a parameter and a column, and its own time in milliseconds."""

    parameter: Callable[[str], str]
    column: Callable[[str], str]
    now_ms: str


class FilterSql(NamedTuple):
    """A filter in one dialect: the way to its rows, the conditions, and the parameters of both."""

    way: Way
    conditions: str
    values: dict[str, Any]


def way_of(wanted: Filter) -> Way:
    """The narrowest index that a filter allows."""
    if wanted.ids is not None:
        return Way.IDS
    if wanted.alias is not None:
        return Way.ALIAS
    if wanted.owner is not None and (wanted.state is None or wanted.after_seq is not None):
        return Way.OWNER
    if wanted.id_prefix is not None and wanted.state is None:
        return Way.PREFIX
    return Way.STATE if wanted.state is not None else Way.ALL


def filter_sql(wanted: Filter, dialect: Dialect) -> FilterSql:
    """The filter in a dialect.

    The parameters have `limit` too, and `ids`, `alias` and `owner`, or `prefix` and `prefix_end`
    where the way needs them.
    """
    parameter, column, now_ms = dialect
    values: dict[str, Any] = {"limit": wanted.limit}
    tests: list[str] = []
    for name, compared, sign in _COMPARED:
        if (value := getattr(wanted, name)) is not None:
            values[name] = value
            tests.append(f"{column(compared)} {sign} {parameter(name)}")
    tests += _parts(wanted, dialect, values)
    if wanted.state is not None:
        tests.append(f"{column('state')} = '{wanted.state}'")
    if wanted.never_sent:
        never = f"{column('sends')} = 0 AND {column('first_sent_at_ms')} IS NULL"
        tests.append(f"{column('state')} = 'pending' AND {never}")
    if wanted.older_than_seconds is not None:
        values["older_than_ms"] = int(wanted.older_than_seconds * 1000)
        tests.append(f"{column('accepted_at_ms')} <= {now_ms} - {parameter('older_than_ms')}")
    if wanted.id_prefix is not None:
        values |= {"prefix": wanted.id_prefix, "prefix_end": wanted.id_prefix + _HIGHEST_CHARACTER}
        tests.append(f"{column('event_id')} >= {parameter('prefix')}")
        tests.append(f"{column('event_id')} < {parameter('prefix_end')}")
    if wanted.alias is not None:
        values |= {"alias": wanted.alias, "owner": wanted.owner}
    if wanted.ids is not None:
        values["ids"] = sorted(set(wanted.ids))
    return FilterSql(way_of(wanted), " AND ".join(tests) or "true", values)


def _parts(wanted: Filter, dialect: Dialect, values: dict[str, Any]) -> Iterator[str]:
    """The conditions of texts that are contained. Puts their parameters into `values`."""
    parameter, column, _ = dialect
    for name, searched in _CONTAINED:
        if value := getattr(wanted, name):
            values[name] = value
            yield f"instr(lower({column(searched)}), lower({parameter(name)})) > 0"
    if wanted.payload_part:
        values["payload_part"] = wanted.payload_part.encode()
        payload = "SELECT payload FROM outbox AS p WHERE p.seq = outbox_rows.seq"
        yield f"instr(({payload}), {parameter('payload_part')}) > 0"
