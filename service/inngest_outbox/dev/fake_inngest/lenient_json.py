"""JSON as Go's decoder reads it, for bodies that a strict parser does not take.

Go replaces what is not Unicode, matches the names of fields in any case, and reads an array element
by element, up to a bracket, a brace or the end of the body.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

NOT_JSON = "Unable to read the events: the body is not a JSON object or array of objects"
_SPACE = b" \t\r\n"
_FLOAT_DIGITS = 309  # fewer are in the range of a float
_INFINITE = float("inf")
_LAYERS = ("sessions", "propagated_sessions")
_FIELDS = ("name", "id", "ts", "v", "data", "user", "meta")


def walk_array(body: bytes) -> Iterator[bytes]:
    """The elements of an array. Raises ValueError at the first fault."""
    text = body.decode(errors="replace")
    at = _skip_space(text, 1)
    while not _ends(text, at):
        _, end = _values.raw_decode(text, at)
        yield text[at:end].encode()
        at = _skip_space(text, end)
        if _ends(text, at):
            return
        if text[at] != ",":
            raise ValueError(NOT_JSON)
        at = _skip_space(text, at + 1)
        if _ends(text, at):
            raise ValueError(NOT_JSON)


def plain_event(raw: bytes) -> bytes:
    """An event's known fields, as JSON that a strict parser takes. Raises ValueError."""
    found = _values.decode(raw.decode(errors="replace"))
    if not isinstance(found, dict):
        raise ValueError("Event must be an object")  # noqa: TRY004
    fields = {name.casefold(): value for name, value in found.items()}
    known = {name: fields[name] for name in _FIELDS if name in fields}
    if isinstance(known.get("meta"), dict):
        known["meta"] = {
            key: one for key, one in known["meta"].items() if key.casefold() in _LAYERS
        }
    text = json.dumps(known, ensure_ascii=False, allow_nan=False)
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()


def check_numbers(raw: bytes) -> None:
    """Raise ValueError for a number that is out of a float's range."""
    json.dumps(_values.decode(raw.decode()), allow_nan=False)


def _ends(text: str, at: int) -> bool:
    return at >= len(text) or text[at] in "]}"


def _skip_space(text: str, at: int) -> int:
    while text[at : at + 1].encode() in _SPACE and at < len(text):
        at += 1
    return at


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")


def _integer(text: str) -> float:
    return int(text) if len(text) < _FLOAT_DIGITS else _bounded(text)


def _bounded(text: str) -> float:
    number = float(text)
    return _INFINITE if abs(number) == _INFINITE else int(number)


_values = json.JSONDecoder(parse_constant=_refuse, parse_int=_integer)
