"""A filter as SQL: the conditions of the rows that it wants, the same in both dialects.

A store adds where it looks for the rows: by their ids, by an owner, or in the table of a state.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, NamedTuple

from service.outbox.model import Filter

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


class Way(enum.Enum):
    """The index by which the rows of a filter are found."""

    IDS = enum.auto()
    ALIAS = enum.auto()
    OWNER = enum.auto()
    PREFIX = enum.auto()
    STATE = enum.auto()
    ALL = enum.auto()


class Dialect(NamedTuple):
    """How a store writes a parameter and a column, and its own time in milliseconds."""

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
