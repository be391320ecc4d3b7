"""The JSON of a request's events, read as leniently as Inngest's server reads it.

The server is written in Go, whose decoder replaces what is not Unicode, matches field names in any
case, and reads an array element by element: what stands before a fault counts. A decoder holds the
event loop for as long as it takes, a value of 3 MiB for a second, so a large value is checked a
piece at a time and without building it. The invariant: what passes here can be decoded there.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from itertools import accumulate, islice

import msgspec

from service.outbox.nesting import MAX_DEPTH
from service.outbox.storable import repaired

NO_EVENTS = "The body is not an event object or an array of event objects in JSON"
MAX_EVENTS = 5_000
_LARGE_ARRAY_BYTES = 4_194_304
_GLANCE_BYTES = 1_048_576
_SPACE = " \t\r\n"
_ENDS = ("", "]", "}")
_space = re.compile(f"[{_SPACE}]*").match
LARGE_BYTES = 65_536
TOO_DEEP = f"An event is nested more than {MAX_DEPTH} levels deep"
OUT_OF_RANGE = "A number is out of range"
_PIECE_BYTES = 65_536
_FLOAT_DIGITS = 309  # a number of fewer digits, without an exponent, is in the range of a float
_DIGITS = bytes.maketrans(b"0123456789", b"1" * 10)
_MANY_DIGITS = b"1" * _FLOAT_DIGITS
_STEPS = [(byte in b"[{") - (byte in b"]}") for byte in range(256)]
_NO_BRACKETS = bytes(byte for byte in range(256) if not _STEPS[byte])
_IN_NUMBERS = b"-+.0123456789eE"
_find_exponent = re.compile(rb"[0-9.][eE]").search
_numbers = re.compile(rb"[-+.0-9eE]{2,}").findall

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
    if len(body) > _LARGE_ARRAY_BYTES and _is_crowded(body):
        yield from _walk(body.decode(errors="replace"))  # not split: nobody reads to its end
        return
    try:
        found = _split_array(body)
    except (msgspec.DecodeError, RecursionError):
        yield from _walk(body.decode(errors="replace"))
    else:
        yield from map(bytes, found)


def _is_crowded(body: bytes) -> bool:
    """True where the beginning alone has more elements than a request may have."""
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


def fields_of(raw: bytes, names: frozenset[str]) -> Fields:
    """The fields of an object that are among `names`, their names in lower case.

    Raises msgspec.DecodeError or RecursionError for what is not an object.

    >>> fields_of(b'{"Name": "a", "more": 1}', frozenset({"name", "id"})).keys()
    dict_keys(['name'])
    """
    fields = _decode_fields(repaired(raw))
    folded = ((name.casefold(), value) for name, value in fields.items())
    return {name: value for name, value in folded if name in names}


def faults(value: bytes, piece_bytes: int = _PIECE_BYTES) -> Iterator[str | None]:
    """The first fault of the JSON `value`, in words; None between two pieces.

    `value` is a well-formed array or object. It may only be nested too deeply, or hold a number out
    of range.

    >>> list(faults(b'{"a": [1, "["]}'))
    [None]
    >>> list(faults(b"[1e400]"))
    ['A number is out of range']
    """
    level, begun = 0, b""
    for piece in _outside_of_strings(value, piece_bytes):
        level, highest = _levels(piece, level)
        if highest > MAX_DEPTH:
            yield TOO_DEEP
            return
        text = begun + piece
        whole = text.rstrip(_IN_NUMBERS)  # a number may continue in the next piece
        begun = text[len(whole) :]
        if _may_be_out_of_range(whole) and _is_out_of_range(whole):
            yield OUT_OF_RANGE
            return
        yield None


def has_many_digits(text: bytes) -> bool:
    """True where a number may be out of a float's range by its digits alone."""
    return _MANY_DIGITS in text.translate(_DIGITS)


def _may_be_out_of_range(text: bytes) -> bool:
    # Looking for single bytes first is ten times as fast as the pattern alone.
    if (b"e" in text or b"E" in text) and _find_exponent(text):
        return True
    return has_many_digits(text)


def _is_out_of_range(text: bytes) -> bool:
    return any(math.isinf(float(number)) for number in _numbers(text))


def _outside_of_strings(value: bytes, piece_bytes: int) -> Iterator[bytes]:
    plain = value.replace(b"\\\\", b"").replace(b'\\"', b"")
    inside = False
    for start in range(0, len(plain), piece_bytes):
        parts = plain[start : start + piece_bytes].split(b'"')
        yield b"".join(parts[inside::2])
        inside ^= len(parts) % 2 == 0


def _levels(piece: bytes, level: int) -> tuple[int, int]:
    """The level after the piece, and the highest one in it or a bound of it."""
    opened = piece.count(b"[") + piece.count(b"{")
    if level + opened <= MAX_DEPTH:
        return level + opened - piece.count(b"]") - piece.count(b"}"), MAX_DEPTH
    brackets = piece.translate(None, _NO_BRACKETS)
    levels = list(accumulate(map(_STEPS.__getitem__, brackets), initial=level))
    return levels[-1], max(levels)


def _refuse(constant: str) -> float:
    raise ValueError(constant)


_scanner = json.JSONDecoder(parse_constant=_refuse)
