"""The JSON of a request's events, read as leniently as Inngest's server reads it.

The server is written in Go, whose decoder replaces what is not Unicode, matches field names in any
case, and reads an array element by element: what stands before a fault counts. A decoder holds the
event loop for as long as it takes, a value of 3 MiB for a second, so what is large is read a piece
at a time and without building it: the generators yield None between two pieces. The invariant: what
passes here can be decoded there.
"""

from __future__ import annotations

import json
import math
import re
from codecs import getincrementaldecoder
from collections.abc import Generator, Iterator
from itertools import accumulate

import msgspec

from inngest_outbox.outbox.event import MAX_EVENT_BYTES
from inngest_outbox.outbox.storable import ESCAPE, MAX_DEPTH, repaired

NO_EVENTS = "The body is not an event object or an array of event objects in JSON"
MAX_EVENTS = 5_000
_SPLIT_BYTES = 4_194_304  # so much is split at once within a few milliseconds
_SPACE = " \t\r\n"
_ENDS = ("", "]", "}")
_space = re.compile(f"[{_SPACE}]*").match
LARGE_BYTES = 65_536
TOO_DEEP = f"An event is nested more than {MAX_DEPTH} levels deep"
OUT_OF_RANGE = "A number is out of range"
TOO_LARGE = f"An event is larger than {MAX_EVENT_BYTES} bytes"
_PIECE_BYTES = 16_384
_FLOAT_DIGITS = 309  # a number of fewer digits, without an exponent, is in the range of a float
_DIGITS = bytes.maketrans(b"0123456789", b"1" * 10)
_MANY_DIGITS = b"1" * _FLOAT_DIGITS
_STEPS = [(byte in b"[{") - (byte in b"]}") for byte in range(256)]
_NO_BRACKETS = bytes(byte for byte in range(256) if not _STEPS[byte])
_IN_NUMBERS = b"-+.0123456789eE"
_find_exponent = re.compile(rb"[0-9.][eE]").search
_numbers = re.compile(rb"[-+.0-9eE]{2,}").findall
_structure = re.compile(rb"[][{},]").finditer
_short_key = re.compile(rb'[ \t\r\n]*("(?:[^"\\]|\\.){1,64}")[ \t\r\n]*:[ \t\r\n]*').match
_find_surrogate = re.compile(r"\\u[dD][89a-fA-F]").search
_escapes = ESCAPE.finditer
_ESCAPES_A_PIECE = 4_096

Fields = dict[str, msgspec.Raw]
Piecewise = Generator[None, None, bytes]
_decode_fields = msgspec.json.Decoder(Fields).decode
_decode_key = msgspec.json.Decoder(str).decode
_split_array = msgspec.json.Decoder(list[msgspec.Raw]).decode


class BadEventError(ValueError):
    """Inngest would refuse this event, or this body. The message holds no input."""


class _NoFields(msgspec.Struct):
    """Any object, of which nothing is built."""


_check_syntax = msgspec.json.Decoder(_NoFields).decode


def elements(body: bytes) -> Iterator[bytes | None]:
    """The elements of an array, or one object; an empty body has none.

    Raises BadEventError after the last element that can be read. In a large body an element that
    has more behind it than a comma is not read.
    """
    at = 0
    while at < len(body) and not body[at : at + _PIECE_BYTES].strip(_SPACE.encode()):
        at += _PIECE_BYTES
        yield None
    text = body[at:].lstrip(_SPACE.encode())
    if text.startswith(b"{"):
        yield text
    elif text.startswith(b"["):
        yield from _elements_of_array(text)
    elif text:
        raise BadEventError(NO_EVENTS)


def _elements_of_array(body: bytes) -> Iterator[bytes | None]:
    if len(body) <= _SPLIT_BYTES:
        try:
            yield from map(bytes, _split_array(body))
        except (msgspec.DecodeError, RecursionError):
            pass
        else:
            return
    if len(body) <= LARGE_BYTES:
        yield from _walk(body.decode(errors="replace"))
        return
    is_first = True
    for span in _members(body):
        if span is None:
            yield None
            continue
        element = body[span].strip(_SPACE.encode())
        if element:
            yield element
        elif not is_first or body[span.stop : span.stop + 1] == b",":
            raise BadEventError(NO_EVENTS)
        is_first = False


def _members(text: bytes) -> Iterator[slice | None]:
    """The places of the members of the array or object that `text` begins with.

    It ends at its bracket, at the other bracket, or where the text ends.
    """
    level, start, at, inside = 0, 1, 0, False
    while at < len(text):
        piece, part_at = _piece(text, at), at
        parts = piece.replace(b"\\\\", b"__").replace(b'\\"', b"__").split(b'"')
        is_inside_after = inside ^ (len(parts) % 2 == 0)
        low, after = _lowest(b"".join(parts[inside::2]), level)
        if low > 1:  # no member ends in this piece
            level, parts = after, []
        elif at - start > MAX_EVENT_BYTES:
            raise BadEventError(TOO_LARGE)
        for part in parts:
            for found in () if inside or not part else _structure(part):
                sign, place = found[0], part_at + found.start()
                if sign in b"[{":
                    level += 1
                elif sign in b"]}":
                    level -= 1
                if level == 0 or (level == 1 and sign == b","):
                    yield slice(start, place)
                    start = place + 1
                if level == 0:
                    return
            part_at += len(part) + 1
            inside = not inside
        inside = is_inside_after
        at += len(piece)
        yield None
    yield slice(start, len(text))


def _piece(text: bytes, at: int) -> bytes:
    """The next piece; a backslash stays with what it escapes."""
    piece = text[at : at + _PIECE_BYTES]
    if (len(piece) - len(piece.rstrip(b"\\"))) % 2:
        return text[at : at + len(piece) + 1]
    return piece


def _lowest(part: bytes, level: int) -> tuple[int, int]:
    """The lowest level in the part, and the level after it."""
    levels = list(
        accumulate(map(_STEPS.__getitem__, part.translate(None, _NO_BRACKETS)), initial=level)
    )
    return min(levels), levels[-1]


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


def large_fields_of(raw: bytes, names: frozenset[str]) -> Generator[None, None, Fields]:
    """As `fields_of`, a piece at a time. Raises RecursionError only for the object itself."""
    text = yield from _repaired(raw)
    _check_syntax(text)
    fields: Fields = {}
    for span in _members(text):
        if span is None:
            yield None
        elif key := _short_key(text, span.start, span.stop):
            name = _decode_key(key[1]).casefold()
            if name in names:
                value = text[key.end() : span.stop].strip(_SPACE.encode())
                fields[name] = msgspec.Raw(value)
    return fields


def _repaired(raw: bytes) -> Piecewise:
    decoder = getincrementaldecoder("utf-8")("replace")
    pieces = []
    for at in range(0, len(raw), _PIECE_BYTES):
        pieces.append(decoder.decode(raw[at : at + _PIECE_BYTES]))
        yield None
    text = "".join(pieces) + decoder.decode(b"", final=True)
    if not _find_surrogate(text):
        return text.encode()
    kept, at = [], 0
    for number, found in enumerate(_escapes(text)):
        if found["half"]:
            kept += [text[at : found.start()], "\\ufffd"]
            at = found.end()
        if number % _ESCAPES_A_PIECE == 0:
            yield None
    return "".join([*kept, text[at:]]).encode()


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


# An integer of any length is a number: Python's own takes 4,300 digits.
_scanner = json.JSONDecoder(parse_constant=_refuse, parse_int=float)
