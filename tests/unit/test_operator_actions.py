"""Changes of operators and of the retention reach the store as they were asked for."""

from __future__ import annotations

from typing import Any, cast

from service.console.operations.actions import OperatorActions
from service.observe.recorder import NullRecorder


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
