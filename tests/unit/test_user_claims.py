"""The user that verified claims name, how a user is named elsewhere, and who is an operator."""

from __future__ import annotations

from typing import Any

import pytest

from inngest_outbox.errors import OperatorRequiredError
from inngest_outbox.identity.user import EVENT_KEY_ISSUER, Operators, User, user_from_claims

ISSUER = "https://issuer.example"


def user(*, id_claims: tuple[str, ...] = ("sub",), **claims: Any) -> User | None:
    return user_from_claims(claims, issuer=ISSUER, id_claims=id_claims)


def test_every_claim_has_its_place() -> None:
    assert user(
        sub="u-1",
        email="ada@example.com",
        name="Ada",
        organizationId="acme",
        email_verified=True,
    ) == User(ISSUER, "u-1", "ada@example.com", "Ada", "acme", email_verified=True)


def test_what_is_not_claimed_is_not_known() -> None:
    assert user(sub="u-1") == User(ISSUER, "u-1", None, None, None, email_verified=False)
    for odd in (False, None, 1, "true", "yes", [True]):
        assert user(sub="u-1", email="a@b.c", email_verified=odd) == User(ISSUER, "u-1", "a@b.c")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((text, text) for text in ("u-1", "a b", "\u00e9", "x" * 255)),
        *((number, str(number)) for number in (7, 0, -1)),
    ],
)
def test_an_id_is_printable_text_or_an_integer(value: object, text: str) -> None:
    assert user(sub=value) == User(ISSUER, text)
    assert user(sub="u-1", organizationId=value) == User(ISSUER, "u-1", organization_id=text)


@pytest.mark.parametrize(
    "value",
    [
        *(None, "", " ", "\t", True, False, 1.5, ["u"], {"id": 1}),
        *("a\nb", "a\x00", "\u202e", "\ud83d", "x" * 256),
    ],
)
def test_anything_else_is_no_id(value: object) -> None:
    assert user(sub=value) is None
    assert user(sub="u-1", organizationId=value) == User(ISSUER, "u-1")


def test_the_first_claim_that_can_be_used_is_the_id() -> None:
    both = ("id", "email")
    for claims, owner in (
        ({"id": "u-1", "email": "a@b.c"}, "u-1"),
        ({"id": "", "email": "a@b.c"}, "a@b.c"),
        ({"email": "a@b.c"}, "a@b.c"),
    ):
        found = user(id_claims=both, **claims)
        assert found
        assert found.id == owner
    assert user(id_claims=both, sub="u-1") is None


@pytest.mark.parametrize("name", [None, "", "  ", 7, True, ["Ada"], "x" * 1025])
def test_a_name_of_a_wrong_type_or_length_is_not_known(name: object) -> None:
    assert user(sub="u-1", name=name, email=name) == User(ISSUER, "u-1")


@pytest.mark.parametrize(
    ("name", "shown"),
    [("x" * 1024, "x" * 1024), ("A\nda\x1b", "A da\ufffd"), ("Ada \ud83d", "Ada ?")],
)
def test_a_name_is_made_safe_to_show(name: str, shown: str) -> None:
    assert user(sub="u-1", name=name, email=name) == User(ISSUER, "u-1", shown, shown)


def test_an_owner_is_an_issuer_s_user_and_an_actor_the_id_that_people_know() -> None:
    ada, cron = User("dev", "u-1"), User(EVENT_KEY_ISSUER, "cron")
    assert (ada.owner, ada.actor) == ("dev u-1", "u-1")
    assert (cron.owner, cron.actor) == ("key cron", "key cron")


def operators() -> Operators:
    return Operators(["Kim@Example.com"])


@pytest.mark.parametrize("email", ["kim@example.com", "KIM@EXAMPLE.COM"])
def test_a_verified_email_of_the_list_is_an_operators(email):
    operators().require(User("dev", "u-1", email, email_verified=True))


@pytest.mark.parametrize("listed", [[""], [], [" "]])
def test_who_has_no_email_is_none_whatever_the_list_says(listed):
    for email in ("", None):
        assert Operators(listed).includes(User("dev", "u-1", email, email_verified=True)) is False


@pytest.mark.parametrize(
    "user",
    [
        User("dev", "u-1", "kim@example.com"),
        User("dev", "kim@example.com", None, email_verified=True),
        User("dev", "u-1", "", email_verified=True),
        User("dev", "u-1", "\u212aim@example.com", email_verified=True),
        User("dev", "u-1", "kim@example.com ", email_verified=True),
        User("dev", "u-1", "ada@example.com", email_verified=True),
    ],
)
def test_anyone_else_is_not(user):
    assert operators().includes(user) is False
    with pytest.raises(OperatorRequiredError):
        operators().require(user)
