"""The cookies of a request, read as browsers write them.

Only `;` ends a cookie, and only spaces and tabs are trimmed from a name. A more tolerant parser
finds a session inside the value of another cookie, which a sibling subdomain can set. So a cookie
must never appear here under another name than the browser's.
"""

from __future__ import annotations

from aiohttp import hdrs, web

_BLANKS = " \t"
_HOST_PREFIX = "__Host-"
_SECURE_PREFIX = "__Secure-"


def cookie_header(request: web.Request) -> str:
    """The request's cookies as one header, empty without cookies."""
    return "; ".join(request.headers.getall(hdrs.COOKIE, ()))


def parse_cookies(header: str) -> dict[str, str]:
    """Each cookie's value by its name. The first cookie of a name counts.

    Quotation marks around a value are removed. The value is not unescaped.

    >>> parse_cookies('a=1; b=x c=2; a=3; d="4"')
    {'a': '1', 'b': 'x c=2', 'd': '4'}
    """
    cookies: dict[str, str] = {}
    for pair in header.split(";"):
        name, separator, value = pair.partition("=")
        if separator:
            cookies.setdefault(name.strip(_BLANKS), _unquoted(value.strip(_BLANKS)))
    return cookies


def host_cookie_name(name: str, *, secure: bool) -> str:
    """`name` bound to exactly this host and to https by its prefix, where cookies are secure."""
    return f"{_HOST_PREFIX}{name}" if secure else name


def secure_cookie_name(name: str) -> str:
    """`name` bound to https by its prefix."""
    return f"{_SECURE_PREFIX}{name}"


def _unquoted(value: str) -> str:
    is_quoted = len(value) > 1 and value[0] == value[-1] == '"'
    return value[1:-1] if is_quoted else value
