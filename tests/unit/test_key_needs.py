"""The encryption keys that waiting events need, in words."""

from __future__ import annotations

from typing import Any

import pytest

from inngest_outbox.console.operations import search
from inngest_outbox.console.operations.key_needs import KeyNeeds, key_needs
from inngest_outbox.console.operations.search import SearchPolicy
from inngest_outbox.encryption import MARK
from inngest_outbox.outbox.model import Row, State
from tests.support.listed_outbox import ListedOutbox
from tests.support.made_row import made_row


def test_a_key_is_called_needless_only_where_all_events_were_looked_at() -> None:
    words = "1,200 waiting events need key 1; no waiting event needs key 2"
    assert KeyNeeds((1_200, 0), 3, is_bounded=False).words == words
    words = "1 waiting event needs key 2; more wait than were looked at: keep every key"
    assert KeyNeeds((0, 1), 0, is_bounded=True).words == words
    assert KeyNeeds((), 0, is_bounded=False).words == ""


def test_a_key_that_is_missing_is_a_fault() -> None:
    assert KeyNeeds((1,), 0, is_bounded=False).fault is None
    for missing, begins in ((1, "1 waiting event needs"), (1_200, "1,200 waiting events need")):
        fault = f"{begins} another key than OUTBOX_ENCRYPTION_KEY has: add it after the others"
        assert KeyNeeds((1,), missing, is_bounded=missing > 1).fault == fault


REMOVED = "its payload was removed meanwhile"


class TwoKeys:
    """Payloads that are the place of the key that opens them, from 1; 0 is another key's."""

    keys = 2

    def revealed(self, payload: bytes) -> tuple[bytes, int | None]:
        return b"", int(payload) - 1 if int(payload) else None


class Encrypted(ListedOutbox):
    """Rows whose names are their payloads."""

    async def payload(self, event_id: str) -> bytes | None:
        name = next(one.name for one in self.rows_in_it if one.id == event_id)
        return None if name == REMOVED else name.encode()


def waiting(payload: str, state: State, owner: str = "dev u-1") -> Row:
    return made_row(state, id=f"{payload} {state} {owner}", name=payload, owner=owner, seq=1)


@pytest.mark.parametrize(
    ("encryption", "needs"),
    [(TwoKeys(), KeyNeeds((1, 3), 2, is_bounded=False)), (None, KeyNeeds((), 4, is_bounded=False))],
)
async def test_events_that_wait_or_are_dead_need_their_keys(
    encryption: TwoKeys | None, needs: KeyNeeds
) -> None:
    outbox: Any = Encrypted(
        [
            waiting(REMOVED, State.PENDING),
            waiting("1", State.PENDING, "key cron"),
            waiting("2", State.DELIVERING),
            waiting("2", State.SENT),
            waiting("2", State.DEAD, "key cron"),
            waiting("0", State.DEAD),
            waiting("0", State.SENT, "keycloak u-1"),
            waiting("0", State.PENDING, "key cron"),  # a machine has keys of its own
            waiting("1", State.DELIVERED),
        ]
    )
    assert await key_needs(outbox, encryption) == needs  # type: ignore[arg-type]
    assert {one.payload_part for one in outbox.asked} == {MARK}


@pytest.mark.parametrize("state", [one for one in State if one is not State.DELIVERED])
async def test_of_a_state_a_thousand_events_are_looked_at_or_as_many_as_a_second_allows(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [made_row(state, id=f"e-{seq}", name="1", seq=seq) for seq in range(1, 1_002)]
    outbox: Any = Encrypted(rows)
    encryption: Any = TwoKeys()
    assert await key_needs(outbox, encryption) == KeyNeeds((1_000, 0), 0, is_bounded=True)
    outbox.rows_in_it.pop()
    assert await key_needs(outbox, encryption) == KeyNeeds((1_000, 0), 0, is_bounded=False)
    monkeypatch.setattr(search, "SearchPolicy", lambda: SearchPolicy(2, budget_seconds=0.0))
    assert await key_needs(outbox, encryption) == KeyNeeds((2, 0), 0, is_bounded=True)
