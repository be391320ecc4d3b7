"""Users are remembered by their cookies, within bounds and as long as their sessions are valid."""

from __future__ import annotations

from service.identity.sessions import RememberedUsers
from service.identity.user import FoundUser, User

ADA = FoundUser(User("dev", "ada"), 100.0)
BOB = FoundUser(User("dev", "bob"), 200.0)
MOST_CHARS = 16 * 1024 * 1024


def test_a_user_is_known_by_the_same_cookies_until_the_session_ends() -> None:
    users = RememberedUsers()
    users.put("a=1", ADA)
    assert (users.get("a=1", 99.9), users.get("a=2", 0.0)) == (ADA, None)
    assert users.get("a=1", 100.0) is None
    assert len(users) == 0
    assert users.get("a=1", 0.0) is None


def test_the_latest_user_of_the_same_cookies_counts() -> None:
    users = RememberedUsers()
    users.put("a=1", ADA)
    users.put("a=1", BOB)
    assert (users.get("a=1", 0.0), len(users)) == (BOB, 1)


def test_the_least_recently_used_one_goes_first() -> None:
    users = RememberedUsers(2)
    for cookies in ("a", "b"):
        users.put(cookies, ADA)
    users.get("a", 0.0)
    users.put("c", BOB)
    assert [users.get(one, 0.0) for one in ("a", "b", "c")] == [ADA, None, BOB]
    users.put("a", ADA)
    users.put("d", BOB)
    assert [users.get(one, 0.0) for one in ("a", "c", "d")] == [ADA, None, BOB]


def test_no_more_than_10000_are_remembered() -> None:
    users = RememberedUsers()
    for number in range(10_001):
        users.put(str(number), ADA)
    assert len(users) == 10_000
    assert users.get("0", 0.0) is None
    assert users.get("1", 0.0) is ADA


def test_their_cookies_have_no_more_than_16_mi_characters() -> None:
    users = RememberedUsers()
    users.put("x" * (MOST_CHARS - 1), ADA)
    users.put("a", BOB)
    assert len(users) == 2
    users.put("b", BOB)
    assert (len(users), users.get("a", 0.0), users.get("b", 0.0)) == (2, BOB, BOB)


def test_what_is_forgotten_makes_room_and_is_counted_once() -> None:
    users = RememberedUsers()
    large, other = ("x" * (MOST_CHARS // 2), "y" * (MOST_CHARS // 2))
    for _ in range(5):
        users.put(large, ADA)
    users.put(other, BOB)
    assert len(users) == 2
    users.clear()
    assert (len(users), users.get(large, 0.0)) == (0, None)
    users.put(large, ADA)
    users.put(other, BOB)
    assert (users.get(large, 200.0), len(users)) == (None, 1)  # the session has ended
    users.put(large, ADA)
    assert len(users) == 2
