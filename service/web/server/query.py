"""Reads the query of a request."""

from __future__ import annotations

from aiohttp import web

from service.errors import InvalidFieldError


def whole_number(request: web.Request, name: str, least: int, most: int) -> int | None:
    """The number in the query, None without one. Raises InvalidFieldError outside of the bounds."""
    given = request.query.get(name)
    if given is None:
        return None
    is_number = given.isascii() and given.isdecimal() and len(given) <= len(str(most))
    if not is_number or not least <= int(given) <= most:
        raise InvalidFieldError(f"{name} is a whole number from {least} to {most}.")
    return int(given)
