"""Which owners share their event ids."""

from __future__ import annotations

import pytest

from service.outbox.event import Event, Meta
from service.outbox.event_ids import named_apart


@pytest.mark.parametrize(
    ("shared", "second"),
    [((), "cron/a"), (("key cron",), "cron/a"), (("key cron", "key shop"), "a")],
)
def test_owners_share_ids_where_both_are_named(shared: tuple[str, ...], second: str) -> None:
    events = [
        Event(name, "n", f"key {name}", name, 0, b"{}", Meta("a")) for name in ("shop", "cron")
    ]
    assert [one.meta.wire_id for one in named_apart(events, {}, shared)] == ["a", second]
