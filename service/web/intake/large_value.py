"""Checks of a large JSON value, a piece at a time and without building it.

A decoder holds the event loop for as long as it takes: a value of 3 MiB for a second. The
invariant: what passes here can be decoded, and what can't be decoded does not pass.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from itertools import accumulate

from service.outbox.nesting import MAX_DEPTH

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


def faults(value: bytes, piece_bytes: int = _PIECE_BYTES) -> Iterator[str | None]:
    """What is wrong with the JSON `value`, in words, at the first fault; None between two pieces.

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
        whole = text.rstrip(_IN_NUMBERS)  # a number may go on in the next piece
        begun = text[len(whole) :]
        if _may_be_out_of_range(whole) and _is_out_of_range(whole):
            yield OUT_OF_RANGE
            return
        yield None


def has_many_digits(text: bytes) -> bool:
    """Whether a number may be out of a float's range by its digits alone."""
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
