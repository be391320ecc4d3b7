"""The audit of operators' commands; the same in every store.

A command changes many rows in pages. Each page has an audit row in its own commit, and the audit
rows of one command have the same `act`. So the audit names every changed event, even when the
command was interrupted.
"""

from __future__ import annotations

import itertools
import re
import secrets
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from inngest_outbox.outbox.model import Filter

AuditRow = tuple[str, int, str, str, str, str]
"""A stored row: act, at_ms, actor, action, detail, the ids as a JSON array."""


class Act(msgspec.Struct, frozen=True, gc=False):
    """One command of an operator: its id, and in words how its rows were chosen."""

    id: str
    chosen: str


class Deed(msgspec.Struct, frozen=True, gc=False):
    """A change by an operator that concerns no event, in the words of the audit."""

    actor: str
    action: str
    detail: str


class AuditRecord(msgspec.Struct, frozen=True, gc=False):
    """One command in the audit. `at` is milliseconds since 1970, `ids` every event it changed.

    `detail` says how the events were chosen, or describes the change.
    """

    act: str
    at: int
    actor: str
    action: str
    detail: str
    ids: tuple[str, ...]


class ErasedRecords(msgspec.Struct, frozen=True, gc=False):
    """The numbers of records of an owner that were removed or lost its name."""

    settings: int
    audit_rows: int


ERASED = "erased"


def erased_words(words: str, owner: str) -> str:
    """Words of the audit without the owner's name.

    Words that hold the owner's id as a word of its own are replaced whole.

    >>> erased_words("owner=dev u-1, limit=500", "dev u-1"), erased_words("user_id=u-11", "dev u-1")
    ('erased', 'user_id=u-11')
    """
    user_id = owner.partition(" ")[2] or owner
    is_named = re.search(rf"(?<![\w@.-]){re.escape(user_id)}(?![\w@-])", words)
    return ERASED if is_named else words


def act_of(wanted: Filter) -> Act:
    """A new act that chooses its rows by this filter."""
    return new_act(chosen_by(wanted))


def new_act(chosen: str) -> Act:
    """A new act; `chosen` says how its rows are chosen."""
    return Act(secrets.token_hex(16), chosen)


def chosen_by(wanted: Filter) -> str:
    """A filter in words.

    >>> chosen_by(Filter(reason="rejected", since_ms=1795559419447, limit=500))
    'reason=rejected, since=2026-11-24T22:30:19Z, limit=500'
    >>> chosen_by(Filter(ids=("e-1",), user_id="u-1", payload_part="what no audit keeps"))
    '1 given id, user_id=u-1, a text in the payload'
    """
    given = {name: value for name, value in msgspec.structs.asdict(wanted).items() if value}
    if wanted.ids:
        del given["limit"]
    return ", ".join(_words(name, value) for name, value in given.items())


def id_start(beginning: str) -> str:
    """The text of an id's beginning in a stored JSON array of ids.

    >>> id_start("019e")
    '"019e'
    """
    return msgspec.json.encode(beginning).decode()[:-1]


def ids_text(ids: Sequence[str]) -> str:
    """Ids as the audit stores them."""
    return msgspec.json.encode(ids).decode()


def records(rows: Iterable[AuditRow]) -> list[AuditRecord]:
    """One record for each act. The rows of an act follow each other, the oldest first."""
    return [_record(list(same)) for _, same in itertools.groupby(rows, key=lambda row: row[0])]


def _record(rows: list[AuditRow]) -> AuditRecord:
    act, at_ms, actor, action, detail, _ = rows[0]
    ids = [one for row in rows for one in msgspec.json.decode(row[5], type=list[str])]
    return AuditRecord(act, at_ms, actor, action, detail, tuple(ids))


def _words(name: str, value: Any) -> str:
    if name == "ids":
        return f"{len(value):,} given id{'s' if len(value) != 1 else ''}"
    if name == "payload_part":
        return "a text in the payload"
    if name.endswith("_part"):
        return f"{name.removesuffix('_part')} contains {value}"
    if name.endswith("_ms"):
        moment = datetime.fromtimestamp(value / 1000, UTC)
        return f"{name.removesuffix('_ms')}={moment:%Y-%m-%dT%H:%M:%SZ}"
    return f"{name}={value}"
