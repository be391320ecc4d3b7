"""Who counts as an operator."""

from __future__ import annotations

import pytest

from service.errors import OperatorRequiredError
from service.identity.user import Operators, User


def operators() -> Operators:
    return Operators(["Kim@Example.com"])


@pytest.mark.parametrize("email", ["kim@example.com", "KIM@EXAMPLE.COM"])
def test_a_verified_email_of_the_list_is_an_operators(email):
    operators().require(User("dev", "u-1", email, email_verified=True))


@pytest.mark.parametrize("listed", [[""], [], [" "]])
@pytest.mark.parametrize("email", ["", None])
def test_who_has_no_email_is_none_whatever_the_list_says(listed, email):
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
