"""The JSON of a request's events, read as leniently as Inngest's server reads it.

The server is written in Go, whose decoder replaces what is not Unicode, matches field names in any
case, and reads an array element by element: what stands before a fault counts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import islice

import msgspec

NO_EVENTS = "The body is not an event object or an array of event objects in JSON"
MAX_EVENTS = 5_000
_LARGE_BYTES = 4_194_304
_GLANCE_BYTES = 1_048_576
_SPACE = " \t\r\n"
_ENDS = ("", "]", "}")
_space = re.compile(f"[{_SPACE}]*").match
_ESCAPE = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    r"|(?P<half>u[dD][89a-fA-F][0-9a-fA-F]{2})"
    r"|.)",
    re.DOTALL,
)

Fields = dict[str, msgspec.Raw]
_decode_fields = msgspec.json.Decoder(Fields).decode
_split_array = msgspec.json.Decoder(list[msgspec.Raw]).decode


class BadEventError(ValueError):
    """Inngest would refuse this event, or this body. The message holds no input."""


def elements(body: bytes) -> Iterator[bytes]:
    """The elements of an array, or one object; an empty body has none.

    Raises BadEventError after the last element that can be read.
    """
    text = body.lstrip(_SPACE.encode())
    if text.startswith(b"{"):
        yield text
    elif text.startswith(b"["):
        yield from _elements_of_array(text)
    elif text:
        raise BadEventError(NO_EVENTS)


def _elements_of_array(body: bytes) -> Iterator[bytes]:
    if len(body) > _LARGE_BYTES and _is_crowded(body):
        yield from _walk(body.decode(errors="replace"))  # not split: nobody reads to its end
        return
    try:
        found = _split_array(body)
    except (msgspec.DecodeError, RecursionError):
        yield from _walk(body.decode(errors="replace"))
    else:
        yield from map(bytes, found)


def _is_crowded(body: bytes) -> bool:
    """Whether the beginning alone has more elements than a request may have."""
    if body.count(b",", 0, _GLANCE_BYTES) < MAX_EVENTS:
        return False
    try:
        found = _walk(body[:_GLANCE_BYTES].decode(errors="replace"))
        return next(islice(found, MAX_EVENTS, None), None) is not None
    except BadEventError:
        return False


def _walk(text: str) -> Iterator[bytes]:
    """The elements of an array that no strict parser takes, as far as they can be read.

    The server ends an array at its bracket, at a brace, or where the body ends.
    """
    at = _skip_space(text, 1)
    while text[at : at + 1] not in _ENDS:
        end = _end_of_value(text, at)
        yield text[at:end].encode()
        at = _skip_space(text, end)
        if is_followed := text[at : at + 1] == ",":
            at = _skip_space(text, at + 1)
        if is_followed is (text[at : at + 1] in _ENDS):
            raise BadEventError(NO_EVENTS)


def _end_of_value(text: str, start: int) -> int:
    try:
        return int(_scanner.raw_decode(text, start)[1])
    except (ValueError, RecursionError) as error:
        raise BadEventError(NO_EVENTS) from error


def _skip_space(text: str, at: int) -> int:
    found = _space(text, at)
    return found.end() if found else at


def repaired(raw: bytes) -> bytes:
    r"""The same JSON with U+FFFD for what is not Unicode.

    >>> repaired(b'"\\ud83d\\ude00 \\ud83d \xff"').decode()
    '"\\ud83d\\ude00 \\ufffd \ufffd"'
    """
    text = raw.decode(errors="replace")
    if "\\u" in text:
        text = _ESCAPE.sub(lambda found: "\\ufffd" if found["half"] else found[0], text)
    return text.encode()


def fields_of(raw: bytes, names: frozenset[str]) -> Fields:
    """The fields of an object that are among `names`, their names in lower case.

    Raises msgspec.DecodeError or RecursionError for what is not an object.

    >>> fields_of(b'{"Name": "a", "more": 1}', frozenset({"name", "id"})).keys()
    dict_keys(['name'])
    """
    fields = _decode_fields(repaired(raw))
    folded = ((name.casefold(), value) for name, value in fields.items())
    return {name: value for name, value in folded if name in names}


def _refuse(constant: str) -> float:
    raise ValueError(constant)


_scanner = json.JSONDecoder(parse_constant=_refuse)
