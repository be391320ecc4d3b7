"""A user's sessions have a revision, and users are remembered by their cookies, within bounds."""

from __future__ import annotations

import asyncio

import pytest

from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.identity.session_revision import (
    SESSION_SCOPE,
    SessionRevisions,
    session_scope_id,
)
from inngest_outbox.identity.sessions import RememberedUsers
from inngest_outbox.identity.user import FoundUser, User
from tests.support.memory_scopes import MemoryScopes, Tree

ADA, BOB = "dev ada", "dev bob"
OF_ADA = SESSION_SCOPE, session_scope_id(ADA)


@pytest.fixture
def scopes() -> MemoryScopes:
    return MemoryScopes()


@pytest.fixture
def revisions(scopes: MemoryScopes) -> SessionRevisions:
    return SessionRevisions(scopes)


async def test_who_never_ended_sessions_has_an_empty_revision_also_while_the_store_is_away(
    scopes: MemoryScopes, revisions: SessionRevisions
) -> None:
    assert [await revisions.current(ADA) for _ in range(3)] == ["", "", ""]
    assert scopes.loads == 1
    scopes.is_away = True
    assert await revisions.current(ADA) == ""
    with pytest.raises(OutboxUnavailableError):
        await revisions.current(BOB)


async def test_ending_the_sessions_of_one_user_changes_that_user_s_revision_only(
    scopes: MemoryScopes, revisions: SessionRevisions
) -> None:
    await revisions.current(ADA)
    await revisions.end_all(ADA)
    first = await revisions.current(ADA)
    assert len(first) == 16
    assert scopes.stored == {OF_ADA: {"revision": first}}
    await revisions.end_all(ADA)
    assert await revisions.current(ADA) not in {"", first}
    assert await revisions.current(BOB) == ""


async def test_a_change_by_another_process_is_noticed_and_then_remembered(
    scopes: MemoryScopes, revisions: SessionRevisions
) -> None:
    assert await revisions.current(ADA) == ""
    generation = revisions.generation
    await SessionRevisions(scopes).end_all(ADA)
    assert revisions.generation > generation
    loads = scopes.loads
    for _ in range(3):
        assert await revisions.current(ADA) == scopes.stored[OF_ADA]["revision"]
        assert await revisions.current(BOB) == ""
    assert scopes.loads == loads + 2


async def test_the_10000_revisions_that_were_looked_up_last_are_remembered(
    scopes: MemoryScopes, revisions: SessionRevisions
) -> None:
    for number in range(10_001):
        await revisions.current(f"dev {number}")
    assert scopes.loads == 10_001
    for number in range(1, 10_001):
        await revisions.current(f"dev {number}")
    assert scopes.loads == 10_001
    await revisions.current("dev 0")
    assert scopes.loads == 10_002


class SlowScopes(MemoryScopes):
    """Loads end when they are let go."""

    def __init__(self) -> None:
        super().__init__()
        self.go = asyncio.Event()

    async def load_scope(self, scope: str, scope_id: str) -> Tree | None:
        found = await super().load_scope(scope, scope_id)
        await self.go.wait()
        return found


@pytest.mark.parametrize("looks_meanwhile", [False, True])
async def test_what_was_read_before_a_change_is_not_remembered(looks_meanwhile: bool) -> None:  # noqa: FBT001
    scopes = SlowScopes()
    revisions = SessionRevisions(scopes)
    reading = asyncio.create_task(revisions.current(ADA))
    await asyncio.sleep(0)
    await revisions.end_all(ADA)
    others = asyncio.create_task(revisions.current(BOB)) if looks_meanwhile else None
    await asyncio.sleep(0)
    scopes.go.set()
    assert await reading == ""
    if others:
        await others
    assert await revisions.current(ADA) == scopes.stored[OF_ADA]["revision"]


class LateScopes(MemoryScopes):
    """A process that has not yet heard of what others save."""

    def __init__(self, others: MemoryScopes) -> None:
        super().__init__()
        self.stored = others.stored


async def test_a_new_session_has_the_revision_that_another_process_has_just_stored(
    scopes: MemoryScopes, revisions: SessionRevisions
) -> None:
    late = SessionRevisions(LateScopes(scopes))
    assert await late.current(ADA) == ""
    await revisions.end_all(ADA)
    assert await late.latest(ADA) == await revisions.current(ADA) != ""
    assert await late.current(ADA) == await revisions.current(ADA)


FOUND_ADA = FoundUser(User("dev", "ada"), 100.0)
FOUND_BOB = FoundUser(User("dev", "bob"), 200.0)
MOST_CHARS = 16 * 1024 * 1024


def test_the_latest_user_of_the_same_cookies_is_known_until_the_session_ends() -> None:
    users = RememberedUsers()
    users.put("a=1", FOUND_BOB)
    users.put("a=1", FOUND_ADA)
    assert len(users) == 1
    assert (users.get("a=1", 99.9), users.get("a=2", 0.0)) == (FOUND_ADA, None)
    assert users.get("a=1", 100.0) is None
    assert len(users) == 0
    assert users.get("a=1", 0.0) is None


def test_of_more_than_10000_the_least_recently_used_one_goes_first() -> None:
    users = RememberedUsers()
    for number in range(10_000):
        users.put(str(number), FOUND_ADA)
    users.get("0", 0.0)
    users.put("1", FOUND_BOB)
    for cookies in ("a", "b"):
        users.put(cookies, FOUND_ADA)
    assert len(users) == 10_000
    found = [users.get(one, 0.0) for one in ("0", "1", "2", "3", "4", "a")]
    assert found == [FOUND_ADA, FOUND_BOB, None, None, FOUND_ADA, FOUND_ADA]


def test_their_cookies_have_no_more_than_16_mi_characters() -> None:
    users = RememberedUsers()
    users.put("x" * (MOST_CHARS - 1), FOUND_ADA)
    users.put("a", FOUND_BOB)
    assert len(users) == 2
    users.put("b", FOUND_BOB)
    assert (len(users), users.get("a", 0.0), users.get("b", 0.0)) == (2, FOUND_BOB, FOUND_BOB)


def test_what_is_forgotten_makes_room_and_is_counted_once() -> None:
    users = RememberedUsers()
    large, other = ("x" * (MOST_CHARS // 2), "y" * (MOST_CHARS // 2))
    for _ in range(5):
        users.put(large, FOUND_ADA)
    users.put(other, FOUND_BOB)
    assert len(users) == 2
    users.clear()
    assert (len(users), users.get(large, 0.0)) == (0, None)
    users.put(large, FOUND_ADA)
    users.put(other, FOUND_BOB)
    assert (users.get(large, 200.0), len(users)) == (None, 1)  # the session has ended
    users.put(large, FOUND_ADA)
    assert len(users) == 2
    users.put("z" * (MOST_CHARS // 2), FOUND_ADA)
    assert (len(users), users.get(other, 0.0)) == (2, None)
