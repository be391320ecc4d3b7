"""Who may act on what belongs to others.

An operator is known by an e-mail that the identity provider says is verified; in development the
development sign-in counts as such a provider.
"""

from __future__ import annotations

from collections.abc import Iterable

from service.errors import OperatorRequiredError
from service.identity.user import User


class Operators:
    """The people of OPERATOR_EMAILS, whatever the case of their letters."""

    def __init__(self, emails: Iterable[str]) -> None:
        self._emails = frozenset(_plain(email) for email in emails)

    def includes(self, user: User) -> bool:
        """Whether `user` is an operator."""
        return bool(user.email) and user.email_verified and _plain(user.email or "") in self._emails

    def require(self, user: User) -> None:
        """Raise OperatorRequiredError unless `user` is an operator."""
        if not self.includes(user):
            raise OperatorRequiredError


def _plain(email: str) -> str:
    # Some letters outside ASCII become ASCII ones in lower case, and other people's addresses.
    return email.lower() if email.isascii() else email
