"""An erasure waits for events under way, and its certificate says what is gone and what is left."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from msgspec import structs

from inngest_outbox.console.operations import erasure, search
from inngest_outbox.console.operations.erasure import OUT_OF_REACH, Certificate, ErasureParts, erase
from inngest_outbox.console.operations.search import SearchPolicy
from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.outbox.audit import Act, ErasedRecords
from inngest_outbox.outbox.model import Named, State
from tests.support.listed_outbox import ListedOutbox
from tests.support.made_row import made_row
from tests.support.virtual_time import in_virtual_time, now

T = 1_800_000_000_000
EACH = (State.PENDING, State.DELIVERING, State.SENT, State.DELIVERED, State.DEAD)


class Store(ListedOutbox):
    """An outbox that removes rows but `claimed` ones, and notes each act and when it was."""

    def __init__(self, *states: State, owner: str = "mine") -> None:
        rows = (
            made_row(state, id=f"e-{seq}", seq=seq, owner=owner)
            for seq, state in enumerate(states, 1)
        )
        super().__init__(rows)
        self.acts: list[tuple[object, ...]] = []
        self.claimed: set[str] = set()

    def become(self, state: State) -> None:
        """Settle all rows so."""
        self.rows_in_it = [structs.replace(one, state=state) for one in self.rows_in_it]

    async def sign_out(self, owners: Sequence[str], *, actor: str) -> int:
        self.acts.append((now(), "sign out", actor, *owners))
        return len(owners)

    async def discard(self, wanted: Named, *, actor: str, act: Act) -> list[str]:
        self.acts.append((now(), actor, act.chosen, *wanted.ids))
        gone = [one for one in wanted.ids if one not in self.claimed]
        self.rows_in_it = [one for one in self.rows_in_it if one.id not in gone]
        return gone

    async def erase_records(self, owner: str, *, actor: str) -> ErasedRecords:
        self.acts.append((now(), "records", actor, owner))
        return ErasedRecords(1, 20)


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(erasure, "wall_now_ms", lambda: T + int(now() * 1000))


async def erased(store: Store, owners: Sequence[str] = ("mine",), **how: Any) -> Certificate:
    parts: Any = ErasureParts(store, store, store, store, remains=["its pages"])  # type: ignore[arg-type]
    given = {"after_delivery": False, "patience_seconds": 9.0, **how}
    return await erase(parts, owners, actor="ada", **given)


@in_virtual_time
async def test_all_is_erased_but_what_is_under_way_for_longer_than_the_patience(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where the searches for it pause."""
    monkeypatch.setattr(search, "SearchPolicy", lambda: SearchPolicy(2, 2, budget_seconds=0.0))
    store = Store(*EACH)
    certificate = await erased(store)
    events = {"pending": 1, "sent": 1, "delivered": 1, "dead": 1}
    places = (*OUT_OF_REACH, "its pages")
    assert certificate == Certificate(T + 9_000, "ada", events, 1, 20, 1, places)
    words = (0.0, "ada", "everything of one owner")
    assert store.acts == [
        (0.0, "sign out", "ada", "mine"),
        *((*words, f"e-{one}") for one in (1, 3, 4, 5)),
        (9.0, "records", "ada", "mine"),
    ]


@pytest.mark.parametrize(
    ("states", "after_delivery", "left", "events"),
    [
        ([State.DELIVERING], False, 0, {"delivered": 1}),
        ([State.PENDING, State.SENT], True, 0, {"delivered": 2}),
        ([State.PENDING, State.DELIVERING], False, 0, {"pending": 1, "delivered": 1}),
    ],
)
@in_virtual_time
async def test_what_is_under_way_is_waited_for(
    states: list[State], left: int, events: dict[str, int], *, after_delivery: bool
) -> None:
    store = Store(*states)
    erasing = asyncio.create_task(erased(store, after_delivery=after_delivery))
    await asyncio.sleep(2.2)
    store.become(State.DELIVERED)
    certificate = await erasing
    assert (certificate.events, certificate.left, certificate.at) == (events, left, T + 2_500)
    assert {act[2] for act in store.acts if act[1] == "ada"} == {"everything of one owner"}


@in_virtual_time
async def test_where_events_shall_be_delivered_first_those_that_were_not_are_left() -> None:
    store = Store(*EACH)
    certificate = await erased(store, after_delivery=True, patience_seconds=0.0)
    assert (certificate.events, certificate.left) == ({"delivered": 1, "dead": 1}, 3)


@pytest.mark.parametrize(
    ("away", "acts"), [("sign_out", 0), ("rows", 1), ("discard", 1), ("erase_records", 2)]
)
@in_virtual_time
async def test_an_erasure_in_which_the_store_is_away_gives_no_certificate(
    away: str, acts: int
) -> None:
    class Away(Store):
        def __getattribute__(self, name: str) -> Any:
            if name == away:
                raise OutboxUnavailableError
            return super().__getattribute__(name)

    store = Away(State.DEAD)
    with pytest.raises(OutboxUnavailableError):
        await erased(store)
    assert len(store.acts) == acts


@in_virtual_time
async def test_an_event_that_was_claimed_meanwhile_counts_once_it_is_gone() -> None:
    store = Store(State.PENDING, State.DEAD)
    store.claimed = {"e-1"}
    erasing = asyncio.create_task(erased(store))
    await asyncio.sleep(1.2)
    store.claimed.clear()
    store.become(State.DELIVERED)
    assert (await erasing).events == {"dead": 1, "delivered": 1}


@pytest.mark.parametrize(("comes", "left", "ends"), [(1, 0, 2), (99, 1, 10)])
@in_virtual_time
async def test_what_is_accepted_meanwhile_is_removed_too_for_the_patience(
    comes: int, left: int, ends: int
) -> None:
    class Accepting(Store):
        async def discard(self, wanted: Named, *, actor: str, act: Act) -> list[str]:
            await asyncio.sleep(1)
            if (seq := len(self.acts)) <= comes:
                self.rows_in_it.append(made_row(State.PENDING, id=f"n-{seq}", seq=9, owner="mine"))
            return await super().discard(wanted, actor=actor, act=act)

    certificate = await erased(Accepting(State.DEAD))
    assert certificate.events == {"dead": 1, "pending": ends - 1}
    assert (certificate.left, certificate.at) == (left, T + ends * 1000)


@in_virtual_time
async def test_an_owner_with_more_rows_than_one_look_takes_is_erased_however_long_it_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(erasure, "_MOST", 2)
    store = Store(*[State.DEAD] * 5)
    assert (await erased(store, patience_seconds=0.0)).events == {"dead": 5}
    assert store.rows_in_it == []


@in_virtual_time
async def test_records_of_several_owners_are_summed_up_and_others_stay() -> None:
    store = Store(State.DEAD, State.SENT, State.DEAD)
    for at, owner in enumerate(("another", "yours", "mine")):
        store.rows_in_it[at] = structs.replace(store.rows_in_it[at], owner=owner)
    certificate = await erased(store, ["mine", "yours"], after_delivery=True, patience_seconds=0.0)
    assert (certificate.settings, certificate.audit_rows) == (2, 40)
    assert (certificate.events, certificate.left) == ({"dead": 1}, 1)
    assert (await erased(store, ["mine", "yours"])).events == {"sent": 1}
    assert store.acts[0] == (0.0, "sign out", "ada", "mine", "yours")
    assert [one.owner for one in store.rows_in_it] == ["another"]
    assert {one.limit for one in store.asked} == {1_000_001}  # a row more tells that there are more
