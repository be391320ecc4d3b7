"""Changes of operators and of the retention reach the store as they were asked for."""

from __future__ import annotations

from typing import Any, cast

from service.console.operations.actions import OperatorActions, Payloads
from service.observe.recorder import NullRecorder
from tests.support.figures import Figures


class Purges:
    """Repairs that remember the ages they were given."""

    def __init__(self) -> None:
        self.ages: list[float] = []

    async def purge(self, *, older_than_seconds: float, actor: str | None) -> int:
        assert actor is None
        self.ages.append(older_than_seconds)
        return 2

    async def purge_payloads(self, *, older_than_seconds: float) -> int:
        self.ages.append(older_than_seconds)
        return 3


async def test_payloads_and_rows_go_at_the_ages_that_were_asked_for() -> None:
    purges = Purges()
    actions = OperatorActions(cast("Any", purges), NullRecorder())
    assert await actions.purge_payloads(older_than_seconds=60.0) == 3
    assert await actions.purge(older_than_seconds=90.0, actor=None) == 2
    assert purges.ages == [60.0, 90.0]


class Stored:
    """One event's payload, and an audit."""

    def __init__(self) -> None:
        self.audit: list[tuple[object, ...]] = []

    async def payload(self, event_id: str) -> bytes | None:
        return b"{}" if event_id == "known" else None

    async def record(
        self, action: str, *, actor: str, event_id: str | None = None, detail: str = ""
    ) -> None:
        self.audit.append((action, actor, event_id, detail))


async def test_a_look_at_payloads_is_in_the_audit_and_counted() -> None:
    stored, figures = Stored(), Figures()
    payloads = Payloads(cast("Any", stored), cast("Any", stored), figures)
    assert await payloads.show("unknown", actor="kim") is None
    assert (stored.audit, figures.got) == ([], [])
    assert await payloads.show("known", actor="kim") == b"{}"
    await payloads.searched(actor="kim")
    assert stored.audit == [
        ("payload", "kim", "known", "looked at the payload"),
        ("payload", "kim", None, "searched the payloads"),
    ]
    assert figures.got == [("count", "operator_actions", 1, ("action", "payload"))] * 2
