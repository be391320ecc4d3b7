"""Values of clients are decoded as by others, and hold up nobody."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import msgspec
import pytest

from service.untyped_json import decode_untyped, decode_untyped_object

NUMBERS = [b"1e308", b"-1.7976931348623157e308", b"5e-324", b"1e-400", b"0.1", b"-0.0", b"1e23"]


def test_a_number_is_what_python_reads_or_refused_where_a_float_can_not_hold_it() -> None:
    for number in NUMBERS:
        text = b'{"a":%b}' % number
        assert decode_untyped_object(text) == json.loads(text)
    for number in (b"1e309", b"-1e999", b"9" * 400 + b".0"):
        with pytest.raises(msgspec.ValidationError):
            decode_untyped(b"[%b]" % number)


@pytest.mark.parametrize("number", [b"1e308", b"5e-324", b"123456789012345678e290"])
def test_numbers_near_the_limits_take_about_as_long_as_python_s_reader(number: bytes) -> None:
    text = b"[" + b",".join([number] * 20_000) + b"]"
    assert _seconds(decode_untyped, text) < 6 * _seconds(json.loads, text)


def _seconds(decode: Callable[[bytes], object], text: bytes) -> float:
    """The processor time of the fastest of three."""
    taken = []
    for _ in range(3):
        began = time.thread_time()
        decode(text)
        taken.append(time.thread_time() - began)
    return min(taken)
