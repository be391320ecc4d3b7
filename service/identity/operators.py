"""The people who may act for others.

An operator is recognised by an e-mail that the identity provider says is verified. In development
the development sign-in counts as such a provider.
"""

from __future__ import annotations

from collections.abc import Iterable

from service.errors import OperatorRequiredError
from service.identity.user import User


class Operators:
    """The people in OPERATOR_EMAILS, in any letter case."""

    def __init__(self, emails: Iterable[str]) -> None:
        self._emails = frozenset(_plain(email) for email in emails)

    def includes(self, user: User) -> bool:
        """True when `user` is an operator."""
        email = user.email
        return bool(email and user.email_verified and _plain(email) in self._emails)

    def require(self, user: User) -> None:
        """Raise OperatorRequiredError unless `user` is an operator."""
        if not self.includes(user):
            raise OperatorRequiredError


def _plain(email: str) -> str:
    # Some letters outside ASCII become ASCII in lower case: another person's address.
    return email.lower() if email.isascii() else email
