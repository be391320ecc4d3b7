"""The access to the operators' pages, and the fields of their forms."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import parse_qsl

from aiohttp import hdrs, web
from multidict import MultiDict

from service.errors import InvalidFieldError
from service.identity.operators import Operators
from service.identity.user import User
from service.web.server.body import read_body

MAX_FORM_BYTES = 256 * 1024
_MAX_FIELDS = 2_000


class OperatorAccess:
    """Lets operators in."""

    def __init__(
        self, user_of: Callable[[web.Request], Awaitable[User]], operators: Operators
    ) -> None:
        self._user_of = user_of
        self._operators = operators

    async def actor(self, request: web.Request) -> str:
        """The operator's name for the audit.

        Raises what `user_of` raises, and OperatorRequiredError.
        """
        user = await self._user_of(request)
        self._operators.require(user)
        return user.email or user.id


async def read_form(request: web.Request) -> MultiDict[str]:
    """The fields of a posted form. Raises InvalidFieldError, and what `read_body` raises."""
    body = await read_body(request, max_bytes=MAX_FORM_BYTES)
    try:
        return MultiDict(parse_qsl(body.decode(errors="replace"), max_num_fields=_MAX_FIELDS))
    except ValueError:
        raise InvalidFieldError(f"A form has at most {_MAX_FIELDS:,} fields.") from None


def see_other(path: str) -> web.Response:
    """An answer that leads the browser to another page by GET."""
    return web.Response(status=303, headers={hdrs.LOCATION: path})
